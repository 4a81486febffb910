"""The command line: parsing only. A verb's code is imported when the verb is called.

`verbs` names the verbs as text, `parsing` makes settings from words by the dataclass of a verb, and
`program` calls it.
"""

from eofm.cli.parsing import UsageError, joined, parse
from eofm.cli.program import find_verb, main
from eofm.cli.verbs import GROUPS, VERBS

__all__ = ["GROUPS", "VERBS", "UsageError", "find_verb", "joined", "main", "parse"]
