"""Labels in, a better model out."""

__all__ = [
    "corrections",
    "finetune",
    "recipe",
    "regression",
    "score",
    "slices",
    "train",
    "train_model",
    "training_set",
]
