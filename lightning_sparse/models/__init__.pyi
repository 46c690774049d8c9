from .classifier import Classifier as Classifier
from .networks import lenet5 as lenet5
from .networks import lenet5_caffe as lenet5_caffe
from .networks import lenet_300_100 as lenet_300_100
from .networks import resnet18 as resnet18
from .networks import resnet20 as resnet20
from .networks import small_cnn as small_cnn
