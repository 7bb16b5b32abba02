"""How good is it: measurements on patients whose truth is known."""

__all__ = [
    "comparison",
    "cross_validation",
    "effort",
    "effort_tables",
    "folds",
    "manifestations",
    "patients",
    "recognition",
    "tables",
]
