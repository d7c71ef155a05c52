"""Diagnosis of a model on two tasks."""
