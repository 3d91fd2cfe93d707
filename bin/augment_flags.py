"""The flags of `augment`: what each of its methods takes, and what belongs to none of them."""

from __future__ import annotations

from typing import Any

from absl import flags

from xdistil_tf.data.augmentation.settings import RuleSettings, Settings

FLAGS = flags.FLAGS

_OF_BOTH = ("as_published", "seed")
_OF_TINYBERT = ("rounds", "candidates", "replace_prob", "batch_tokens", "precision")
_OF_RULES = ("p_mask", "p_pos", "p_ngram", "n_iter", "num_samples", "pos_tagger")
# Flags that say something to one of the methods alone.
_OWN = {
    "tinybert": (*_OF_TINYBERT, "masked_lm", "word_vectors"),
    "rules": (*_OF_RULES, "ngram_lengths", "num_processes"),
}


def define_tinybert_flags() -> None:
    flags.DEFINE_string("masked_lm", None, "tinybert: model folder with a masked-LM head.")
    flags.DEFINE_string(
        "word_vectors", None, "tinybert: GloVe text. Default: the masked LM's own word embeddings."
    )
    flags.DEFINE_integer("rounds", None, "tinybert: rounds a text. Default: by task, 10 to 30.")
    flags.DEFINE_integer("candidates", 15, "tinybert: of a word.")
    flags.DEFINE_float("replace_prob", 0.4, "tinybert: of a word in a round.")
    flags.DEFINE_integer("batch_tokens", 8192, "tinybert: pieces of a forward pass.", lower_bound=1)


def define_rule_flags() -> None:
    flags.DEFINE_float("p_mask", 0.1, "rules: chance of a word to become [MASK].")
    flags.DEFINE_float("p_pos", 0.1, "rules: chance of a word to become another of its tag.")
    flags.DEFINE_float("p_ngram", 0.25, "rules: chance of a text to lose all but an n-gram.")
    flags.DEFINE_integer("n_iter", None, "rules: iterations. Default: 20, of pairs 10.")
    flags.DEFINE_integer("num_samples", None, "rules: at most so many variants. Default: all.")
    flags.DEFINE_list("ngram_lengths", ["1", "2", "3", "4", "5"], "rules: words of an n-gram.")
    flags.DEFINE_string(
        "pos_tagger", "pattern", "rules: pattern (TextBlob's), nltk, or spacy:<pipeline>."
    )
    flags.DEFINE_integer(
        "num_processes", 0, "rules: processes. 0: one for each core.", lower_bound=0
    )


def tinybert_settings() -> Settings:
    """What `augment` is told.

    Raises:
      ValueError: If a flag is missing, or belongs to another method.
    """
    _refuse_flags_of_other_methods()
    if FLAGS.masked_lm is None:
        raise ValueError("--method=tinybert needs --masked_lm, a model with a masked-LM head.")
    return Settings(**_values("method", *_OF_BOTH, *_OF_TINYBERT))


def rule_settings() -> RuleSettings:
    """What `augment_by_rules` is told.

    Raises:
      ValueError: If a flag has an impossible value, or belongs to another method.
    """
    _refuse_flags_of_other_methods()
    if not all(one.strip().isdigit() for one in FLAGS.ngram_lengths):
        raise ValueError(
            "Expected --ngram_lengths as whole numbers, 1,2,3 for example. Received: "
            f"{','.join(FLAGS.ngram_lengths)}."
        )
    lengths = tuple(map(int, FLAGS.ngram_lengths))
    return RuleSettings(ngram_lengths=lengths, **_values(*_OF_BOTH, *_OF_RULES))


def _refuse_flags_of_other_methods() -> None:
    for method, names in _OWN.items():
        given = [name for name in names if FLAGS[name].present]
        if method != FLAGS.method and given:
            raise ValueError(
                f"--{given[0]} is for --method={method}. Received: --method={FLAGS.method}. Leave "
                "one of them out."
            )


def _values(*names: str) -> dict[str, Any]:
    return {name: FLAGS[name].value for name in names}
