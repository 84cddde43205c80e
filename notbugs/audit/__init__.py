"""Audit of one classifier: robust accuracy within each threat model, and whether it can be trusted."""

from notbugs.audit.config import AuditConfig
from notbugs.audit.run import run

__all__ = ["AuditConfig", "run"]
