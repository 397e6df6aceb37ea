"""The behaviours of a thinking model, found without labels."""

from probe.taxonomy.config import TaxonomyConfig as TaxonomyConfig
from probe.taxonomy.config import taxonomy_site as taxonomy_site
from probe.taxonomy.fit import fit_taxonomy as fit_taxonomy
from probe.taxonomy.normaliser import Normaliser as Normaliser
from probe.taxonomy.taxonomy import Taxonomy as Taxonomy
