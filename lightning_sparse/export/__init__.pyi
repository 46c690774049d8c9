from .narrow import narrow_to as narrow_to
from .shrink import Shrunk as Shrunk
from .shrink import ShrunkLayer as ShrunkLayer
from .shrink import shrink as shrink
