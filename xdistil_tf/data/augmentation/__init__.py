"""Examples that differ from a task's in some words: TinyBERT's augmentation, in batches.

```
texts -> words -> masked variants -> the masked LM's words  \\
               -> words of several pieces -> word vectors    -> candidates -> rounds -> rows
```

Nothing here imports a model: masked LM and vectors come as callables.
"""
