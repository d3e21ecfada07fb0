"""Whether what a config names is there: models, adapters, data sets, modules. Imports no torch."""

from llf_core.config.name_checks.check import check, for_a_start, look
from llf_core.config.name_checks.hub import ask
from llf_core.config.name_checks.hub_question import Answer, Question, settle
from llf_core.config.name_checks.results import Found

__all__ = ["Answer", "Found", "Question", "ask", "check", "for_a_start", "look", "settle"]
