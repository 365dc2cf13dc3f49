"""Languages by FLORES+ code (ISO 639-3 + ISO 15924), with what the reports say of them."""

from mwanda.languages.lookup import find as find
from mwanda.languages.table import Language as Language
from mwanda.languages.table import known as known
