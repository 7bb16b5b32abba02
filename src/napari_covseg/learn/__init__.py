"""Labels in, a better model out."""

__all__ = [
    "corrections",
    "finetune",
    "labelled_pictures",
    "manifestations",
    "recipe",
    "recognition",
    "regression",
    "score",
    "slices",
    "train",
    "train_model",
    "training_set",
]
