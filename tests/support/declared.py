"""The routes that ingest declares, found in its modules, for tests that go through all of them."""

import importlib
import inspect
import pkgutil

import ingest.http.routes
from ingest.http.openapi import OpenApi
from shared.service.health import HealthApi
from shared.service.routes import Route, routes_of


def declared_routes() -> list[Route]:
    """Every route of ingest, those of the page included."""
    modules = [
        importlib.import_module(f"{ingest.http.routes.__name__}.{found.name}")
        for found in pkgutil.iter_modules(ingest.http.routes.__path__)
    ]
    classes = [
        each
        for module in modules
        for _, each in inspect.getmembers(module, inspect.isclass)
        if each.__module__ == module.__name__
    ]
    return [route for api in (*classes, OpenApi, HealthApi) for route in routes_of(api)]


def described_routes() -> list[Route]:
    """Those that are in the OpenAPI document."""
    return [route for route in declared_routes() if route.is_described]
