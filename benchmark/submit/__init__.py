"""Submissions: schema, screening, verification, rerun, audit, sealed rounds and export."""
