"""The data jobs as Apache Beam pipelines: the same functions, the same bytes."""
