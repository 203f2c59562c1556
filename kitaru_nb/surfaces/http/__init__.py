"""The HTTP surface: one framework-free `kitaru_nb.surfaces.http.api.Api` behind two thin hosts, Starlette (the
stand-alone server) and tornado (`kitaru_nb.surfaces.jupyter`)."""
