"""Models: encoders of the BERT family and recurrent students."""
