"""What --fail-under takes."""

import pytest

from notbugs.errors import InputError
from notbugs.gate.requirements import check_reachable, parse_requirement
from notbugs.stats import wilson_interval


@pytest.mark.parametrize(
    ("text", "threat", "share"),
    [
        ("l2:0.5=30%", "l2:0.5", 0.3),
        ("linf:8/255=0.3", "linf:8/255", 0.3),
        ("clean = 90 %", "clean", 0.9),
        ("30%", None, 0.3),
        ("0.25", None, 0.25),
        ("spatial:30,3=5%", "spatial:30,3", 0.05),
    ],
)
def test_a_threat_model_and_a_share(text: str, threat: str | None, share: float) -> None:
    found = parse_requirement(text)
    assert (found.text, found.threat, found.share) == (text, threat, pytest.approx(share))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be a threat model and a share"),
        ("=30%", "must be a threat model and a share"),
        ("l2:0.5", "must be a threat model and a share"),
        ("l2:0.5=x%", "must be a threat model and a share"),
        ("l2:0.5=nan", "must be above 0 %"),
        ("30", "must be above 0 % and below 100 %, which the lower end of no interval reaches, got '30'; for 30 % pass 30%"),
        ("100%", "must be above 0 % and below 100 %"),
        ("0%", "must be above 0 %"),
        ("-1%", "must be above 0 %"),
    ],
)
def test_what_is_none_is_refused(text: str, says: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_requirement(text)
    assert str(raised.value).startswith("--fail-under: ") and says in str(raised.value)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.963, 0.99, 0.999])
def test_what_no_model_can_reach_is_refused_with_the_images_that_it_takes(share: float) -> None:
    with pytest.raises(InputError) as raised:
        check_reachable([parse_requirement(str(share))], 3)
    needed = int(str(raised.value).rpartition("attack ")[2].split()[0].replace(",", ""))
    assert wilson_interval(needed, needed)[0] >= share > wilson_interval(needed - 1, needed - 1)[0]
    check_reachable([parse_requirement(str(share))], needed)
