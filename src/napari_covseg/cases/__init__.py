"""What is kept: workspace, cases, labels, review state, predictions, every revision."""

__all__ = [
    "case",
    "check",
    "edit_log",
    "history",
    "lock",
    "merge",
    "open_case",
    "prediction",
    "recognition",
    "rescue",
    "revision",
    "workspace",
    "workspace_models",
]
