"""When an image was taken."""

from __future__ import annotations

import pytest

from eofm.raster.metadata.dates import acquisition_date

WHEN = "2021-05-13T07:36:09"


@pytest.mark.parametrize(
    ("tags", "date"),
    [
        ({"datetime": "2021-05-13T07:36:09.024000000"}, WHEN),
        ({"datetime": "2021-05-13T07:36:09Z"}, WHEN),
        ({"datetime": "2021-05-13T09:36:09+02:00"}, WHEN),
        ({"SENSING_TIME": "2021-05-13T07:36:09.024Z; 2021-05-13T07:36:24.1Z"}, WHEN),
        ({"ACQUISITION_DATE": "20210513T073609"}, WHEN),
        ({"ACQUISITION_DATE": "2021-05-13"}, "2021-05-13T00:00:00"),
        ({"first_line_time": "13-MAY-2021 07:36:09.024000"}, WHEN),
        ({"system:time_start": "1620891369024"}, WHEN),
        ({"system:time_start": "1620891369024.0"}, WHEN),
        ({"DATATAKE_1_DATATAKE_SENSING_START": "2021-05-13T07:36:09.024Z"}, WHEN),
        ({"datetime": "yesterday", "SENSING_TIME": "2021-05-13T07:36:09Z"}, WHEN),
        ({"TIFFTAG_DATETIME": "2021:07:03 10:20:30"}, ""),
        ({"PROCESSING_DATE": "2021-07-03", "HLS_PROCESSING_TIME": "2021-07-03T10:20:30Z"}, ""),
        ({"datetime": ""}, ""),
        ({}, ""),
    ],
)
def test_acquisition_date(tags: dict[str, str], date: str) -> None:
    """Acquisition dates of products are read, in UTC; dates of writing and processing are not."""
    assert date == acquisition_date(tags)
