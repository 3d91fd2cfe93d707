"""From sentences to masked-LM records: instances, the tokenized store, and the job around them."""

from xdistil_tf.data.pretraining.create import write_pretraining_records

__all__ = ["write_pretraining_records"]
