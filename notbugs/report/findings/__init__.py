"""Findings: questions, their status and the sentences behind it."""
