"""Label COVID-19 lesions on chest CT in napari: predict, correct, learn."""
