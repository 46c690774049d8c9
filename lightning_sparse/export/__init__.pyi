from .narrow import narrow_to as narrow_to
from .packed import load_packed as load_packed
from .packed import save_packed as save_packed
from .packed_table import packed_table as packed_table
from .shrink import Shrunk as Shrunk
from .shrink import ShrunkLayer as ShrunkLayer
from .shrink import shrink as shrink
