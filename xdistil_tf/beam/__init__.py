"""The jobs of `data/corpus` and `data/pretraining` as Apache Beam pipelines."""
