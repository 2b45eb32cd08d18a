"""Prediction with a trained model: results, files, reports, and faster models."""
