"""From raw task folders to batches: tokenization, readers, splits, records, pipeline."""
