"""Sections of a row's page of measurements that are made on request."""
