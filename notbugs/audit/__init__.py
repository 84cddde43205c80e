"""Audit of one classifier under attack."""

from notbugs.audit.config import AuditConfig
from notbugs.audit.run import run

__all__ = ["AuditConfig", "run"]
