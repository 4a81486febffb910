"""The embedded world: synthetic scenes in the file layout of SSL4EO-S12 v1 (arXiv 2211.07044).

Synthetic means that no pixel was observed by a satellite. The world exists so that the main job and
its tests run anywhere, offline, in minutes. Scores on it say nothing about real imagery.

The path of a location, one module each:

    places      which kinds of landscape there are; where and when: UTM tile, dates, sun, names
    landscape   one location drawn from its biome: its land cover, constant over the year
    season      that ground on one day: weather, two satellites and a Dynamic World map
    spectra     reflectance and backscatter of each surface, with the source of every number
    files       GeoTIFFs, Sentinel-2 products as ESA delivers them, folders, resuming

Ground, air and radar are simple physics on purpose: surface reflectance is mixed per pixel, then
darkened by slopes, shadows and clouds, then seen through an atmosphere whose path radiance and
transmittance change from day to day. So the bright blue of a hazy day is not a class.
"""
