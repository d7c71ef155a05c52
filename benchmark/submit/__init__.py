"""Submissions: schema, safe reading, verification, rerun, audit, sealed rounds, export."""
