"""The dashboard in a real browser, before a server that answers from memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import samples
from playwright.sync_api import Page, Route, expect
from stub import Refused, World

from tests.browsers import six_seconds_later

Opener = Callable[..., Page]
Picture = Callable[[Page, str], None]


# the list


def test_the_list_is_filtered_searched_and_paged_by_the_server(open_page: Opener, picture: Picture) -> None:
    page = open_page("executions")
    rows = page.locator(".kt-executions-table tbody tr")
    expect(rows).to_have_count(50)
    picture(page, "executions")
    page.get_by_role("button", name="Older").click()
    expect(rows.first).to_contain_text("kr-3m9w00000050")
    page.get_by_role("button", name="Older").click()
    expect(rows).to_have_count(20)
    page.get_by_role("button", name="Newer").click()
    expect(rows.first).to_contain_text("kr-3m9w00000050")
    page.get_by_label("Search by flow or id").fill("INVOICE")
    expect(rows).to_have_count(30)
    page.get_by_label("Status", exact=True).select_option("failed")
    expect(rows.first).to_contain_text("failed")
    expect(rows.filter(has_text="completed")).to_have_count(0)
    page.get_by_label("Search by flow or id").fill("nothing like it")
    expect(page.get_by_text("No execution fits.")).to_be_visible()


def test_a_search_that_takes_long_shows_no_answer_of_the_one_before(open_page: Opener) -> None:
    page = open_page("executions")
    search = page.get_by_label("Search by flow or id")
    search.fill("nothing like it")
    expect(page.get_by_text("No execution fits.")).to_be_visible()
    held: list[Route] = []
    page.route(re.compile("text=invoice"), lambda route: held.append(route), times=1)
    search.fill("invoice")
    expect(page.get_by_text("Searching…")).to_be_visible()
    expect(page.get_by_text("No execution fits.")).to_be_hidden()
    while not held:  # the page says so before its request is seen here
        page.wait_for_timeout(10)
    held[0].continue_()
    expect(page.locator(".kt-executions-table tbody tr")).to_have_count(30)
    expect(page.get_by_text("Searching…")).to_be_hidden()


def test_who_clicks_twice_while_a_page_comes_is_on_the_next_one(open_page: Opener) -> None:
    page = open_page("executions")
    older, newer = page.get_by_role("button", name="Older"), page.get_by_role("button", name="Newer")
    held: list[Route] = []
    page.route("**/executions?*cursor=50*", lambda route: held.append(route))
    with page.expect_request("**/executions?*cursor=50*"):
        older.click()
    older.click()
    held.pop().continue_()
    page.unroute("**/executions?*cursor=50*")
    expect(page.locator(".kt-executions-table tbody tr").first).to_contain_text("kr-3m9w00000050")
    newer.click()
    expect(page.locator(".kt-executions-table tbody tr").first).to_contain_text(samples.EXEC)
    expect(newer).to_have_count(0)


def test_the_list_follows_what_happens(open_page: Opener, world: World) -> None:
    page = open_page("executions")
    expect(page.locator(".kt-executions-table tbody tr").nth(1)).to_contain_text("cancelled")
    new = samples.execution("kr-new", flow_name="fresh-one", status=samples.ExecutionStatus.RUNNING, waits=())
    world.executions.insert(0, new)
    world.tell("kr-new", "execution.created")
    expect(page.locator(".kt-executions-table tbody tr").first).to_contain_text("fresh-one")


def test_an_execution_opens_by_click_and_by_its_address(open_page: Opener) -> None:
    page = open_page("executions")
    page.locator(".kt-executions-table tbody tr").first.click()
    expect(page.get_by_role("heading", name="battery-brief")).to_be_visible()
    assert page.url.endswith(f"#/executions/{samples.EXEC}")
    page.go_back()
    expect(page.get_by_role("heading", name="Executions")).to_be_visible()


def test_an_execution_that_is_not_there_says_so(open_page: Opener) -> None:
    page = open_page("executions/kr-none")
    expect(page.get_by_role("alert")).to_contain_text("There is no execution 'kr-none'.")
    expect(page.get_by_role("alert")).to_contain_text("kitaru executions list")


# the graph


def test_a_click_on_a_node_shows_its_checkpoint(open_page: Opener, picture: Picture) -> None:
    page = open_page(f"executions/{samples.EXEC}")
    tree = page.get_by_role("tree", name="Lineage")
    tree.get_by_role("treeitem", name=re.compile("^load, ")).click()
    detail = page.get_by_role("region", name="Checkpoint load")
    expect(detail.get_by_role("cell", name="falling")).to_be_visible()
    picture(page, "execution")
    detail.get_by_role("tab", name="Attempts").click()
    expect(detail).to_contain_text("ConnectionResetError")
    detail.get_by_role("tab", name="Logs").click()
    expect(detail).to_contain_text("connection reset, trying again")
    detail.get_by_role("tab", name="Inputs").click()
    expect(detail).to_contain_text("'battery cells'")
    detail.get_by_role("button", name="← input topic").click()
    expect(page.get_by_role("region", name="Input topic")).to_be_visible()


def test_an_agents_calls_are_listed_with_tokens_and_cost(open_page: Opener) -> None:
    page = open_page(f"executions/{samples.EXEC}?node=agent")
    page.get_by_role("tab", name="Calls inside").click()
    first = page.locator(".kt-calls tbody tr").first
    for text in ("analyst.model#1", "gpt-5-mini", "2.4 s", "2.1k", "$0.0031", "→ search(query="):
        expect(first).to_contain_text(text)


def test_the_tree_works_by_keyboard_alone(open_page: Opener) -> None:
    page = open_page(f"executions/{samples.EXEC}")
    tree = page.get_by_role("tree", name="Lineage")
    expect(tree).to_be_visible()
    tree.focus()
    active = page.locator(".kt-active")
    expect(active).to_have_attribute("aria-label", re.compile("^topic"))
    for _ in range(4):
        page.keyboard.press("ArrowDown")
    expect(active).to_have_attribute("aria-label", re.compile("^analyst, agent, completed, 14.6 s"))
    expect(active).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowLeft")
    expect(active).to_have_attribute("aria-expanded", "false")
    expect(tree.get_by_role("treeitem", name=re.compile("^search"))).to_have_count(0)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(active).to_have_attribute("aria-label", re.compile("^analyst.model#1"))
    page.keyboard.press("End")
    expect(active).to_have_attribute("aria-label", re.compile("^approve, wait, waiting for an answer"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Question approve")).to_be_visible()
    assert tree.get_attribute("aria-activedescendant") == active.get_attribute("id")


def test_a_key_counts_from_the_moment_that_the_tree_is_there(open_page: Opener) -> None:
    page = open_page("executions")
    expect(page.locator(".kt-executions-table tbody tr").first).to_be_visible()
    page.evaluate(
        """exec => {
            new MutationObserver((_, watch) => {
                const tree = document.querySelector('[role=tree]');
                if (!tree) return;
                watch.disconnect();
                tree.dispatchEvent(new KeyboardEvent('keydown', {key: 'End', bubbles: true}));
            }).observe(document.body, {childList: true, subtree: true});
            location.hash = `#/executions/${exec}`;
        }""",
        samples.EXEC,
    )
    expect(page.locator(".kt-active")).to_have_attribute("aria-label", re.compile("^approve"))


def test_the_list_of_lanes_shows_the_same_nodes(open_page: Opener, picture: Picture) -> None:
    page = open_page(f"executions/{samples.EXEC}")
    expect(page.locator(".kt-node").first).to_be_visible()
    drawn = page.locator(".kt-node").count()
    page.get_by_role("button", name="List").click()
    expect(page.locator(".kt-row")).to_have_count(drawn)
    picture(page, "lanes")


def test_two_thousand_nodes_are_there_at_once_and_only_those_in_sight_are_drawn(
    open_page: Opener, world: World
) -> None:
    world.graph = samples.big_graph(2000)
    page = open_page(f"executions/{samples.EXEC}")
    expect(page.locator(".kt-row").first).to_be_visible()
    assert page.locator(".kt-row").count() < 80
    worked = main_thread(page)
    page.evaluate(
        """async () => {
            const area = document.querySelector('.kt-lanes');
            const painted = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
            area.focus();
            area.dispatchEvent(new KeyboardEvent('keydown', {key: 'End', bubbles: true}));
            await painted();
            area.scrollTop = area.scrollHeight;
            await painted();
            await painted();
        }"""
    )
    expect(page.locator(".kt-row").last).to_contain_text("step 1999")
    assert page.locator(".kt-row").count() < 80
    assert 0 < worked() < 0.5


def main_thread(page: Page) -> Callable[[], float]:
    """Tells how many seconds of a processor the page's own thread has used since; others on the machine don't count."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def now() -> float:
        return float(
            next(m["value"] for m in session.send("Performance.getMetrics")["metrics"] if m["name"] == "TaskDuration")
        )

    start = now()
    return lambda: now() - start


def test_news_redraw_the_graph(open_page: Opener, world: World) -> None:
    page = open_page(f"executions/{samples.EXEC}")
    item = page.get_by_role("treeitem", name=re.compile("^publish"))
    expect(item).to_have_attribute("aria-label", re.compile("running"))
    world.calls = [replace(c, status="completed") if c.call_id == "publish" else c for c in world.calls]
    world.tell(samples.EXEC, "checkpoint.completed")
    expect(item).to_have_attribute("aria-label", re.compile("completed"))


# waits


def test_an_approval_is_one_click_and_the_page_follows(open_page: Opener, world: World) -> None:
    page = open_page(f"executions/{samples.EXEC}")
    question = page.get_by_role("region", name="Question: approve")
    question.get_by_role("button", name="Approve").click()
    expect(question).to_contain_text("Answered: true. The execution goes on.")
    expect(question.get_by_role("status")).to_be_focused()
    assert world.posted == [(f"executions/{samples.EXEC}/waits/w-approve/resolve", {"value": True})]
    expect(page.get_by_role("link", name="Inbox")).to_have_text("Inbox")


def test_a_form_checks_each_entry_before_it_sends(open_page: Opener, world: World, picture: Picture) -> None:
    decide = samples.wait("decide", samples.decision_schema())
    world.change(samples.EXEC, waits=(decide,))
    page = open_page("inbox")
    form = page.get_by_role("region", name="Question: decide")
    form.get_by_role("button", name="Send").click()
    expect(form.get_by_text("Choose yes or no.")).to_be_visible()
    expect(form.get_by_label("Priority")).to_have_attribute("aria-invalid", "true")
    assert world.posted == []
    form.get_by_label("Yes").check()
    form.get_by_label("Channel").select_option("blog")
    form.get_by_label("Priority").fill("9")
    expect(form.get_by_text("At most 5.")).to_be_visible()
    form.get_by_label("Priority").fill("2")
    form.get_by_label("Budget").fill("12.5")
    form.get_by_role("button", name="+ Recipients").click()
    form.get_by_role("button", name="+ Add an entry").click()
    form.get_by_label("Entry 1", exact=True).fill("ana@example.org")
    form.get_by_role("button", name="+ Address").click()
    form.get_by_label("Street").fill("Ring 1")
    picture(page, "form")
    form.get_by_role("button", name="Send").click()
    expect(page.get_by_text("The execution goes on.")).to_be_visible()
    answer = world.posted[0][1]["value"]
    assert answer == {
        "approved": True,
        "channel": "blog",
        "priority": 2,
        "budget": 12.5,
        "comment": "",
        "recipients": ["ana@example.org"],
        "address": {"street": "Ring 1", "city": "Vienna"},
    }
    samples.Decision.model_validate(answer)


def test_what_the_server_refuses_is_shown_and_the_form_stays(open_page: Opener, world: World) -> None:
    world.refuse = Refused(422, "true is no answer for wait 'approve': it must be a text.")
    page = open_page(f"executions/{samples.EXEC}")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("alert")).to_contain_text("it must be a text")
    world.refuse = None
    page.get_by_role("button", name="Reject").click()
    expect(page.get_by_text("Answered: false")).to_be_visible()
    assert world.posted[-1][1] == {"value": False}


def test_closing_a_question_without_an_answer_asks_once_more(open_page: Opener, world: World) -> None:
    page = open_page(f"executions/{samples.EXEC}")
    page.get_by_role("button", name="Close without an answer…").click()
    assert world.posted == []
    page.get_by_role("button", name="Close it").click()
    expect(page.get_by_text("Closed without an answer")).to_be_visible()
    assert world.posted == [(f"executions/{samples.EXEC}/waits/w-approve/abort", {})]


def test_an_answer_is_in_sight_for_a_while_and_the_next_question_is_open_at_once(
    open_page: Opener, world: World
) -> None:
    page, inbox = open_page(f"executions/{samples.EXEC}"), open_page("inbox")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("Answered: true")).to_be_visible()
    channel = samples.wait("channel", {"enum": ["mail", "blog"]}, question="Where to?")
    world.change(samples.EXEC, waits=(*world.find(samples.EXEC).waits, channel))
    world.tell(samples.EXEC, "wait.created")
    expect(page.get_by_role("button", name="mail")).to_be_visible()
    inbox.get_by_role("button", name="mail").click()
    expect(inbox.get_by_text("Answered: mail")).to_be_visible()
    for shown in (page, inbox):
        six_seconds_later(shown)
    expect(page.get_by_text("Answered: true")).to_have_count(0)
    expect(inbox.get_by_text("Answered: mail")).to_have_count(0)
    expect(inbox.get_by_text("Nobody is waiting for you.")).to_be_visible()


def test_the_node_of_a_question_opens_its_form(open_page: Opener, world: World) -> None:
    channel = samples.wait("channel", {"enum": ["mail", "blog"]}, question="Where to?")
    world.change(samples.EXEC, waits=(samples.wait(), channel))
    page = open_page(f"executions/{samples.EXEC}")
    expect(page.get_by_role("button", name="Approve")).to_be_visible()
    page.get_by_role("treeitem", name=re.compile("^channel, ")).click()
    expect(page.get_by_role("button", name="mail")).to_be_visible()
    expect(page.get_by_role("button", name="Approve", exact=True)).to_have_count(0)


def test_after_an_answer_a_person_is_told_where_to_go_on(open_page: Opener, world: World) -> None:
    world.elsewhere = True
    page = open_page(f"executions/{samples.EXEC}")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_text(f"There, type KitaruClient().executions.resume('{samples.EXEC}').")).to_be_visible()


def test_a_whole_number_beyond_what_javascript_counts_arrives_exactly(open_page: Opener, world: World) -> None:
    world.change(samples.EXEC, waits=(samples.wait("count", {"type": "integer"}),))
    page = open_page("inbox")
    page.get_by_label("Answer").fill("123456789012345678901")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("The execution goes on.")).to_be_visible()
    assert world.posted[0][1] == {"value": 123456789012345678901}


def test_the_inbox_has_all_questions_and_the_badge_counts_them(
    open_page: Opener, world: World, picture: Picture
) -> None:
    many = tuple(
        samples.wait(
            f"ask-{i}", wait_id=f"w{i}", question=f"May I do {i}?", created_at=samples.NOW - timedelta(hours=i)
        )
        for i in range(30)
    )
    world.change(samples.EXEC, waits=many)
    page = open_page("inbox")
    expect(page.get_by_role("link", name="Inbox 30")).to_be_visible()
    expect(page.locator(".kt-inbox-row")).to_have_count(30)
    picture(page, "inbox")
    page.locator(".kt-inbox-row").filter(has_text="ask-7").click()
    page.get_by_role("region", name="Question: ask-7").get_by_role("button", name="Reject").click()
    expect(page.get_by_text("The execution goes on.")).to_be_visible()
    expect(page.locator(".kt-inbox-row")).to_have_count(29)


# actions


def test_a_replay_shows_its_plan_before_it_starts(open_page: Opener, world: World) -> None:
    page = open_page(f"executions/{samples.EXEC}?node=brief")
    page.get_by_role("button", name="Replay from here…").click()
    plan = page.get_by_role("region", name="Replay", exact=True)
    expect(plan).to_contain_text("runs again brief")
    expect(plan).to_contain_text("reused load, chart")
    expect(plan).to_contain_text("saves 4.0 s, 2,052 tokens, $0.0031")
    plan.get_by_role("button", name="Start").click()
    expect(plan).to_have_count(0)
    assert [path.rpartition("/")[2] for path, _ in world.posted] == ["plan", "replay"]
    assert world.posted[1][1] == {"from": ["brief"], "scope": "downstream"}


def test_a_plan_that_comes_late_is_not_taken_for_that_of_what_is_asked_by_then(open_page: Opener, world: World) -> None:
    page = open_page(f"executions/{samples.EXEC}?node=brief")
    asked: list[Route] = []
    page.route("**/replay/plan", lambda route: asked.append(route))
    with page.expect_request("**/replay/plan"):
        page.get_by_role("button", name="Replay from here…").click()
    plan = page.get_by_role("region", name="Replay", exact=True)
    plan.get_by_label("Replay from").fill("load")
    with page.expect_response("**/replay/plan"):
        asked.pop().continue_()
    page.unroute("**/replay/plan")
    expect(plan.get_by_role("button", name="Show the plan")).to_be_enabled()
    expect(plan.get_by_role("button", name="Start")).to_be_disabled()
    plan.get_by_role("button", name="Show the plan").click()
    expect(plan).to_contain_text("runs again load")
    expect(plan.get_by_role("button", name="Start")).to_be_enabled()


def test_cancelling_asks_once_more(open_page: Opener, world: World) -> None:
    page = open_page(f"executions/{samples.EXEC}")
    page.get_by_role("button", name="Cancel…").click()
    page.get_by_role("button", name="Keep it", exact=True).click()
    assert world.posted == []
    page.get_by_role("button", name="Cancel…").click()
    with page.expect_response(lambda answer: answer.url.endswith("/cancel")):
        page.get_by_role("button", name="Cancel it for good").click()
    expect(page.get_by_role("button", name="Cancel…")).to_be_visible()
    assert world.posted == [(f"executions/{samples.EXEC}/cancel", {})]


def test_the_keyboard_goes_on_where_a_button_made_place_for_something(open_page: Opener, world: World) -> None:
    world.change(samples.EXEC, waits=(samples.wait(), samples.wait("second")))
    page = open_page(f"executions/{samples.EXEC}?node=load")
    for asked, kept in (("Cancel…", "Keep it"), ("Close without an answer…", "Keep it open")):
        page.get_by_role("button", name=asked).press("Enter")
        expect(page.get_by_role("button", name=kept, exact=True)).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name=asked)).to_be_focused()
    page.get_by_role("button", name=re.compile("^second")).press("Enter")
    expect(page.get_by_role("region", name="Question: second")).to_be_focused()
    page.get_by_role("button", name="Show the whole execution").press("Enter")
    expect(page.locator(".kt-split-side")).to_be_focused()
    assert world.posted == []


def test_two_executions_are_compared(open_page: Opener, picture: Picture) -> None:
    page = open_page(f"executions/{samples.EXEC}")
    page.get_by_role("tab", name="Compare").click()
    page.get_by_label("Compare with").select_option("kr-3m9w00000004")
    expect(page.get_by_text("1 of 3 checkpoints differ.")).to_be_visible()
    page.get_by_role("button", name=re.compile("analyst.*output differs: ran again")).click()
    expect(page.locator(".kt-diff-left").first).to_contain_text("Risk is low.")
    expect(page.locator(".kt-diff-right").first).to_contain_text("Risk is high.")
    picture(page, "compare")


# hostile input, lost connections


def test_what_users_and_models_wrote_is_text_everywhere(open_page: Opener, world: World, picture: Picture) -> None:
    hostile = samples.HOSTILE
    bad = samples.call(
        "bad",
        name=hostile,
        inputs=(samples.CallInput(hostile, None, hostile, ("input:topic",)),),
        artifacts=(samples.artifact("bad", hostile, hostile, python_type=hostile),),
        failure=samples.FailureInfo(hostile, hostile, hostile),
        status="failed",
        metadata={"model": hostile, "preview": hostile, hostile: hostile},
    )
    schema = {"type": "object", "title": hostile, "properties": {hostile: {"type": "string", "description": hostile}}}
    ask = samples.wait(hostile, schema, wait_id="w1", question=hostile)
    world.calls = [bad]
    world.change(samples.EXEC, flow_name=hostile, waits=(ask,), inputs={hostile: hostile}, metadata={hostile: hostile})
    world.logs = [samples.LogEntry(hostile, "INFO", samples.NOW, "stdout", hostile, "bad")]
    for place in ("executions", "inbox", f"executions/{samples.EXEC}", f"executions/{samples.EXEC}?node=bad"):
        page = open_page(place)
        expect(page.get_by_text("onerror=").first).to_be_visible()
        expect(page.locator(".kt-control", has_text="\\u202e").first).to_be_visible()
        assert page.evaluate("window.hacked") is None
        assert page.locator("main img, main script, main b").count() == 0
        assert page.evaluate("!/[\\u202e\\u0000\\u001b]/.test(document.body.innerText)")
        for tab in page.get_by_role("tab").all():
            tab.click()
        assert page.evaluate("window.hacked") is None
        picture(page, f"hostile-{place[:5]}")


def test_a_lost_connection_is_told_and_made_good(open_page: Opener, world: World) -> None:
    page = open_page("executions")
    expect(page.locator(".kt-executions-table")).to_be_visible()
    world.down = True
    expect(page.get_by_text("Connection lost, trying again…")).to_be_visible()
    world.executions.insert(0, samples.execution("kr-late", flow_name="while-away", waits=()))
    world.down = False
    expect(page.get_by_text("Connection lost, trying again…")).to_have_count(0)
    expect(page.get_by_text("while-away")).to_be_visible()


def test_what_is_not_there_yet_is_said_in_words(open_page: Opener, world: World) -> None:
    world.executions = []
    page = open_page("executions")
    expect(page.get_by_text("No executions yet.")).to_be_visible()
    expect(open_page("inbox").get_by_text("Nobody is waiting for you.")).to_be_visible()
    expect(open_page("deployments").get_by_text("No deployments yet.")).to_be_visible()
    expect(open_page("stacks").get_by_text("No stacks of your own yet: kitaru stack create NAME")).to_be_visible()
