from .shrink import Shrunk as Shrunk
from .shrink import ShrunkLayer as ShrunkLayer
from .shrink import shrink as shrink
