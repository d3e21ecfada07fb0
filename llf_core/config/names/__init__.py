"""Whether what a config names is there: models, adapters, data sets, modules. Imports no torch."""

from llf_core.config.names.check import check, for_a_start, look
from llf_core.config.names.found import Found
from llf_core.config.names.hub import ask
from llf_core.config.names.question import Answer, Question, settle

__all__ = ["Answer", "Found", "Question", "ask", "check", "for_a_start", "look", "settle"]
