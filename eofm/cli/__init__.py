"""The command line: parsing only. A verb's code is imported when the verb is called.

`verbs` names the verbs as text, `options` makes their options from a dataclass of settings,
`parsing` makes settings from words, and `program` calls the verb.
"""

from eofm.cli.parsing import UsageError, joined, parse
from eofm.cli.program import find_verb, main
from eofm.cli.verbs import GROUPS, VERBS

__all__ = ["GROUPS", "VERBS", "UsageError", "find_verb", "joined", "main", "parse"]
