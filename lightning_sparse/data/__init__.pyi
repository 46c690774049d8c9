from .images import ImageData as ImageData
from .planted_digits import Planted as Planted
from .planted_digits import plant as plant
from .planted_digits import planted as planted
from .planted_digits import shortcut_versions as shortcut_versions
from .texts import TextData as TextData
