"""Data sets of COCO files, loading transforms, metrics, and the synthetic data set Shapes."""
