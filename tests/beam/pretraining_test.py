import pytest

from xdistil_tf.beam import pretraining
from xdistil_tf.beam.runners import Runner
from xdistil_tf.data import synthetic
from xdistil_tf.data.pretraining import text, write_pretraining_records


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    synthetic.generate_corpus(folder / "corpus.txt", 60, seed=2)
    tokenizer = synthetic.train_wordpiece(folder / "corpus.txt", 700, folder / "tokenizer")
    return folder / "corpus.txt", tokenizer


def with_beam():
    return pretraining.execution(Runner("DirectRunner"))


def test_a_pipeline_gives_the_same_bytes(corpus, tmp_path, monkeypatch):
    pytest.importorskip("apache_beam")
    monkeypatch.setattr(text.list_parts, "__defaults__", (8000,))
    options = {"max_seq_length": 48, "num_shards": 3, "dupe_factor": 2}
    plain = write_pretraining_records(*corpus, tmp_path / "plain", **options)
    made = write_pretraining_records(*corpus, tmp_path / "beam", **options, execute=with_beam())
    assert made["fingerprint"] == plain["fingerprint"] and made["splits"] == plain["splits"]
    shards = sorted((tmp_path / "plain").glob("*.tfrecord"))
    assert len(shards) == 4
    for path in [*shards, *(one.with_suffix(".index") for one in shards)]:
        assert path.read_bytes() == (tmp_path / "beam" / path.name).read_bytes()


def test_an_error_in_a_pipeline_is_one_line_with_file_and_line(corpus, tmp_path, caplog):
    pytest.importorskip("apache_beam")
    path = tmp_path / "bad.txt"
    path.write_bytes(b"good\n\nb\xe4d\n")
    with pytest.raises(ValueError, match=r"bad.txt line 3: expected UTF-8.*Convert.*UTF-8\.$"):
        write_pretraining_records(path, corpus[1], tmp_path / "r", execute=with_beam())
    assert "Traceback" not in caplog.text
