from watcher.gate import Gate


def shut_gate(until: float) -> Gate:
    gate = Gate()
    gate.shut(until)
    return gate


def test_an_open_gate_lets_all_go() -> None:
    gate = Gate()
    assert gate.lets_go(0)
    assert not gate.enter()
    assert gate.lets_go(0)


def test_a_shut_gate_lets_nothing_go_until_its_moment_and_then_one() -> None:
    gate = shut_gate(10)
    assert (gate.opens_at, gate.lets_go(9.9), gate.lets_go(10)) == (10, False, True)
    assert gate.enter()
    assert not gate.lets_go(11)


def test_the_one_that_gets_through_opens_the_gate_for_all() -> None:
    gate = shut_gate(10)
    gate.enter()
    gate.leave(now=12, through=True)
    assert gate.lets_go(12)
    assert not gate.enter()


def test_after_one_that_does_not_get_through_the_next_goes_alone_too() -> None:
    gate = shut_gate(10)
    gate.enter()
    gate.leave(now=12, through=False)
    assert gate.lets_go(12)
    assert gate.enter()


def test_a_shorter_wish_does_not_open_the_gate_earlier() -> None:
    gate = shut_gate(10)
    gate.shut(5)
    assert gate.opens_at == 10


def test_one_that_gets_through_does_not_open_a_gate_shut_meanwhile() -> None:
    gate = shut_gate(10)
    gate.enter()
    gate.shut(20)
    gate.leave(now=12, through=True)
    assert not gate.lets_go(12)
    assert gate.lets_go(20)
    assert gate.enter()
