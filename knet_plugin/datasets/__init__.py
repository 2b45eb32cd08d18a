"""Loading transforms and the synthetic data set Shapes."""
