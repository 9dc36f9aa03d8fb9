"""The public names of this package; see `fno_telemetry/__init__.pyi`."""

from .accuracy import target_and_output as target_and_output
from .choosing import pictures_of as pictures_of
from .choosing import pictures_of_pair as pictures_of_pair
from .choosing import pictures_of_series as pictures_of_series
from .depth import branch_balance as branch_balance
from .depth import channels_and_samples as channels_and_samples
from .depth import size_and_gain as size_and_gain
from .differences import size_difference as size_difference
from .differences import spectrum_difference as spectrum_difference
from .picture import Picture as Picture
from .picture import Pictures as Pictures
from .profile import curves_by_step as curves_by_step
from .profile import depth_profile as depth_profile
from .spectra import mode_energy as mode_energy
from .spectra import spectrum_by_layer as spectrum_by_layer
from .spectra import values_by_layer as values_by_layer
from .steps import losses as losses
from .steps import spectrum_by_step as spectrum_by_step
from .steps import statistic_by_step as statistic_by_step
from .steps import values_by_step as values_by_step
