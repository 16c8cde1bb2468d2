"""A plugin for workers that lets their machine say it has a GPU, as far as a kind of device is asked for."""

import torch

from proxyds.space.networks.families import FAMILIES as KNOWN

torch.cuda.get_device_name = lambda device=None: "a GPU of the tests"
FAMILIES = {"resnet_of_the_fake_gpu": KNOWN["resnet"]}
