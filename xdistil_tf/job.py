"""What `distill` is asked to do."""

from __future__ import annotations

import dataclasses

from xdistil_tf import recipe, teacher_weights
from xdistil_tf.data.task_records import Options as RecordOptions


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything that says what `distill` does; the flags of the binary, field by field.

    Attributes:
      recipe: Of the student.
      teacher_recipe: For fine-tuning the teacher.
      task_dir: The raw task folder.
      task: A GLUE name, `classification`, `regression` or `tagging`.
      teacher: Hugging Face folder, TF1 checkpoint, model folder or hub name.
      continue_pretraining: Globs of text on which the teacher goes on with its pretraining first.
      pretraining_recipe: For that.
      model_dir: The distill folder.
      more_teachers: Others whose answers are averaged with the first one's.
      teacher_weights: Of all of them, as `teacher_weights.parse_weights` takes it; `None`: equal.
      tokenizer: The student's; `None`: the first teacher's.
      init_checkpoint: What a student that is an encoder starts from.
      transfer_file: Globs of unlabelled texts; `None`: the train texts.
      augmented: Globs of what `augment` made of the task; `None`: the train texts stand for them.
      records: How the task becomes records.
      teacher_labels: The task's labels in the order of the teacher's classes.
      accept_weak_teacher: Go on with a teacher no better than a constant answer.
      labels_only: Whether the baseline is trained.
      labels_only_learning_rates: Of the baseline, compared by held-out value after the student's
        number of updates: the best goes on, all are listed. None: that of the last stage on labels.
      export: Whether a SavedModel is written.
    """

    recipe: recipe.Recipe
    teacher_recipe: recipe.Recipe
    task_dir: str
    task: str
    teacher: str
    model_dir: str
    more_teachers: tuple[str, ...] = ()
    teacher_weights: str | None = None
    tokenizer: str | None = None
    init_checkpoint: str | None = None
    transfer_file: tuple[str, ...] | None = None
    augmented: tuple[str, ...] | None = None
    records: RecordOptions = RecordOptions()
    teacher_labels: tuple[str, ...] | None = None
    accept_weak_teacher: bool = False
    labels_only: bool = True
    labels_only_learning_rates: tuple[float, ...] = ()
    export: bool = True
    continue_pretraining: tuple[str, ...] = ()
    pretraining_recipe: recipe.Recipe | None = None

    def __post_init__(self):
        if self.continue_pretraining and self.pretraining_recipe is None:
            raise ValueError("continue_pretraining needs a pretraining_recipe. Received: None.")
        teacher_weights.parse_weights(self.teacher_weights, 1 + len(self.more_teachers))
        if any(rate <= 0 for rate in self.labels_only_learning_rates):
            raise ValueError(
                "Invalid labels_only_learning_rates. Expected positive numbers. Received: "
                f"{list(self.labels_only_learning_rates)}."
            )
