"""From dumps and other texts to shards of sentences, one a line."""
