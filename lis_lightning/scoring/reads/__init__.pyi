from .code_table import CodeTable as CodeTable
from .cosine import Cosine as Cosine
from .prefixes import Prefixes as Prefixes
from .read import Read as Read
from .search import Search as Search
from .semantic_ids import SemanticIds as SemanticIds
