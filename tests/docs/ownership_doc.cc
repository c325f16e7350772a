// Prints docs/ownership.md: the table of migration/ownership.cc, and what the comments of
// migration/ownership.h say of its states.
//
//   ownership_doc ROOT          prints
//   ownership_doc ROOT --check  compares with ROOT/docs/ownership.md; 1 when it differs
#include <algorithm>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "migration/ownership.h"

namespace {

using namespace migration;

constexpr char kIntroduction[] =
    R"(# Who owns a guest that is moved

Printed from the table that the code steps through (`migration/ownership.cc`) by
`build/release/tests/ownership_doc . > docs/ownership.md`; a test compares.

## What is promised

- At most one side runs the guest, always, whatever fails, however often. None goes on from a state
  that the other has left behind.
- With both processes alive and the link back, the guest comes to run on exactly one side, unless the
  process that owned it was killed. A source that was killed after its COMMIT has not taken the
  guest with it: a new process there passes the COMMIT on (`xenolith migrate --resume`). Only what takes the destination's copy
  away too (its process killed, its disk, its locks, Ctrl-C) loses that guest.
- A destination that is gone for ever costs the source nothing before COMMIT is on the source's disk:
  the source goes on when the link breaks. After that it waits for the destination's answer.
- Ctrl-C at the source: before COMMIT the guest goes on there at once; after it the destination is
  asked, and either gives it up or has it.

How: COMMIT, on the source's disk, is the last moment at which the source may decide. From then on the
destination alone does, once: OWN or ABORTED, on its disk before it acts on it or tells. Every message
has the guest's id and the attempt's epoch; each may be lost, doubled or late. After a lost link, and
after a new process, both sides say again where they are, and what was decided stays decided.

## What is not

- Two hosts that cannot reach each other after COMMIT: the guest stands still until they do, or until
  an operator who knows that the destination's process is dead decides otherwise. There is no
  witness, lease or fence that would know it for him.
- A record that cannot be read, or a folder of records that was lost, replaced by an older one,
  copied to another host or shared between hosts. A side that finds a record which it cannot read says nothing more.
- A disk that takes the record, says so and does not have it after a power cut.
- When the destination's disk can take neither OWN nor ABORTED (full, say), it gives the guest back
  all the same: its copy is discarded, and no OWN of its own is on the disk. Should OWN's write have
  failed so that nobody knows, ABORTED's too, and the process be killed before its answer was heard,
  the guest is lost, on both sides; it never runs on two.
- What happens to a guest after its owner's process was killed.

## Whoever drives it

- does the actions of a step in their order, tells how each record or lock ended before anything
  else, and never answers before that. *Later* is the table's word for all that comes in between.
- holds the lock of the records of its side (`migration/durable.h`): one process speaks for a side.
- takes messages only from the peer with whom the attempt was begun: for the source, where the folder of
  records has the id that came with the first WELCOME; for the destination, whoever has the attempt's
  secret (docs/moving.md). Any other is a lost link, which says nothing of the guest.
- begins to receive only on a connection that the source has made for that attempt, one that cannot be
  played again (TLS, or a socket of this host).
- makes epochs grow: each attempt's is one more than the last of that guest, wherever it was. A guest
  that is started or restored from a file has a new id.
- takes *illegal* for a broken peer: nothing changes, the link is cut, it is reported.
- dials again, while a state is not settled, and says `link up` when it is through.

That this holds is searched through, not argued: `tests/unit/migration/ownership_model_test.cc` goes
through all states of both sides, over a link that loses, doubles and reorders, with processes killed
at any point any number of times, writes that fail in either way, and a second attempt while messages
of the first still come; and finds each of a list of mistakes that are made in the table on purpose.

)";

std::string read_file(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
}

// What stands behind each enumerator of State, in its order.
std::vector<std::string> comments(const std::string& header) {
    std::vector<std::string> out;
    std::istringstream lines(header.substr(header.find("enum class State")));
    for (std::string line; std::getline(lines, line) && line.find("kCount") == std::string::npos;) {
        const std::size_t name = line.find_first_not_of(' ');
        if (name == std::string::npos || line[name] != 'k') continue;
        const std::size_t comment = line.find("// ");
        out.push_back(comment == std::string::npos ? "" : line.substr(comment + 3));
    }
    return out;
}

std::string does(const Answer& answer) {
    std::string out;
    for (const Action action : answer.actions) {
        if (action == Action::kNone) continue;
        out += (out.empty() ? "" : ", ");
        out += message_of(action) ? "say " : "";
        out += name_of(action);
    }
    return out.empty() ? "-" : out;
}

std::string events_with(State state, auto&& wanted) {
    std::string out;
    for (std::size_t e = 0; e < kEvents; ++e) {
        const Event event = static_cast<Event>(e);
        if (!wanted(ownership_table().at(state, event))) continue;
        out += (out.empty() ? "" : ", ") + std::string(name_of(event));
    }
    return out;
}

std::string document(const std::string& header) {
    constexpr const char* kGuests[] = {"-", "stands", "runs", "may run"};
    const std::vector<std::string> meanings = comments(header);
    std::ostringstream out;
    out << kIntroduction;
    for (const Side side : {Side::kSource, Side::kDestination}) {
        const char* name = side == Side::kSource ? "source" : "destination";
        out << "## The " << name << "'s states\n\n"
            << "| state | guest | |\n|---|---|---|\n";
        for (std::size_t s = 0; s < kStates; ++s) {
            const State state = static_cast<State>(s);
            if (side_of(state) != side) continue;
            out << "| " << name_of(state) << (is_settled(state) ? " (settled)" : "") << " | "
                << kGuests[static_cast<std::size_t>(guest_in(state))] << " | "
                << (s < meanings.size() ? meanings[s] : "") << " |\n";
        }
        out << "\n## The " << name << "'s table\n\n"
            << "What is not in it is illegal.\n\n"
            << "| state | event | does | then |\n|---|---|---|---|\n";
        for (std::size_t s = 0; s < kStates; ++s) {
            const State state = static_cast<State>(s);
            if (side_of(state) != side) continue;
            std::vector<Answer> told;
            for (const Answer& answer : ownership_table().answers[s]) {
                if (answer.verdict != Verdict::kGo ||
                    std::find(told.begin(), told.end(), answer) != told.end()) {
                    continue;
                }
                told.push_back(answer);
                out << "| " << name_of(state) << " | "
                    << events_with(state, [&](const Answer& a) { return a == answer; }) << " | "
                    << does(answer) << " | " << name_of(answer.next) << " |\n";
            }
            for (const auto& [verdict, what] :
                 {std::pair(Verdict::kIgnored, "nothing"), std::pair(Verdict::kLater, "later")}) {
                const std::string events =
                    events_with(state, [&](const Answer& a) { return a.verdict == verdict; });
                if (events.empty()) continue;
                out << "| " << name_of(state) << " | " << events << " | " << what << " | |\n";
            }
        }
        if (side == Side::kSource) out << "\n";
    }
    return out.str();
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::cerr << "ownership_doc: which tree?\n";
        return 2;
    }
    const std::string root = argv[1];
    const std::string text = document(read_file(root + "/migration/ownership.h"));
    if (argc < 3) {
        std::cout << text;
        return 0;
    }
    if (text == read_file(root + "/docs/ownership.md")) return 0;
    std::cerr << "docs/ownership.md is not what the table says: run\n"
                 "  build/release/tests/ownership_doc . > docs/ownership.md\n";
    return 1;
}
