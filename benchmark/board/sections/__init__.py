"""Sections of a row's page that have a file of their own."""
