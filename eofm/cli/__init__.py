"""The command line: parsing only. A verb's code is imported when the verb is called.

`verbs` names the verbs as text; `program` parses arguments into the settings dataclass of a verb
and calls it.
"""

from eofm.cli.program import UsageError, find_verb, joined, main, parse
from eofm.cli.verbs import GROUPS, VERBS

__all__ = ["GROUPS", "VERBS", "UsageError", "find_verb", "joined", "main", "parse"]
