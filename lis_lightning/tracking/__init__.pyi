from .workspace import build_workspace as build_workspace
