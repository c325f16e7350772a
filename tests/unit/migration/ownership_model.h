// Every state that two sides and the link between them can reach, and what must hold in it.
//
// The sides are Ownership itself, over the table that is given. Around them, as hostile as it gets:
//   - the link loses, doubles and reorders messages; of each kind and attempt there may be any
//     number on the way at once (a set whose members are taken out or left in when they arrive).
//     A loss is noticed some time later by both sides, each for itself, as a connection's is;
//   - each process is killed at any point and comes back as a new one with what is on its disk, any
//     number of times; also between a record's coming to the disk and its writer's hearing of it;
//   - a record's write succeeds, fails for certain, or fails with the record there or not there; an
//     erased record may come back; a new process may find its record unreadable;
//   - copying, loading and locking fail; operators press Ctrl-C on both sides, at any time;
//   - whoever dials comes to a host that never had the guest, and strangers dial the destination: a
//     rule of whoever drives the sides, which they must heed (docs/ownership.md);
//   - when an attempt ends at the source, another may begin while messages of the first still come.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "migration/ownership.h"

namespace ownership_model {

using migration::Action;
using migration::Answer;
using migration::Event;
using migration::Ownership;
using migration::RecordState;
using migration::State;
using migration::Table;
using migration::Verdict;

// Whose messages are taken: the peer's, as it must be; also those of a destination that never had
// the guest; also those of somebody who asks the destination.
enum class Hears { kPeer, kWrongDestination, kStranger };

struct Bounds {
    unsigned attempts = 1;
    bool kills = true;
    bool losses = true;
    bool disk_failures = true;
    Hears hears = Hears::kPeer;
    // What a state says of the guest is so, and nothing illegal happens.
    bool strict = true;
};

struct Report {
    std::size_t states = 0;
    std::size_t transitions = 0;
    std::size_t endings = 0;  // states in which nothing is left to do
    // The first state in which something does not hold, and how to come to it.
    std::string broken;
    std::vector<std::string> path;
};

enum GuestHere : std::uint8_t { kNoGuest, kStands, kRuns };
enum Link : std::uint8_t { kUp, kBroken, kDown };  // kBroken: it does not know yet

// Records by number: 0 none, then COMMIT, OWN and ABORTED of attempt 1, then of 2.
constexpr std::uint8_t record(RecordState state, unsigned epoch) {
    return static_cast<std::uint8_t>(3 * (epoch - 1) + static_cast<unsigned>(state));
}
constexpr RecordState state_of(std::uint8_t record) {
    return static_cast<RecordState>((record - 1) % 3 + 1);
}
constexpr unsigned epoch_of(std::uint8_t record) {
    return (record - 1u) / 3 + 1;
}

struct SideState {
    State state;
    GuestHere guest;
    bool alive = true;
    std::uint8_t record = 0;
    std::uint8_t writing = 0;  // the record that is being written
    Link link = kUp;
    std::uint8_t epoch = 1;
};

// On the way: the messages, then what is no message of the protocol: the guest itself, and word of
// a new attempt.
enum Mail : unsigned {
    kMailPrepared,
    kMailCommit,
    kMailAbort,
    kMailRunning,
    kMailAborted,
    kMailLost,
    kMailDone,
    kMailGuest,
    kMailHello,
    kMails,
};
constexpr bool goes_to_source(unsigned mail) {
    return mail == kMailPrepared || mail == kMailRunning || mail == kMailAborted ||
           mail == kMailLost;
}

struct World {
    SideState source{State::kMoving, kRuns};
    SideState destination{State::kReceiving, kNoGuest};
    std::uint32_t mail = 0;  // bit kMails * (epoch - 1) + mail
    // What an onlooker knows.
    bool destination_ran = false;
    std::uint8_t went_on = 0;     // the last attempt whose copy is behind the source's guest
    bool owner_killed = false;    // with the guest: nobody may end up running it
    bool source_killed = false;   // after COMMIT: only the copy is left
    bool something_else = false;  // of what loses that copy too
    bool doubt = false;           // an OWN that its writer denied, and could not write over
    bool unsure = false;          // a record could not be read: nobody is to be surprised

    bool has(unsigned what, unsigned epoch) const {
        return (mail >> (kMails * (epoch - 1) + what) & 1) != 0;
    }
    void put(unsigned what, unsigned epoch) { mail |= 1u << (kMails * (epoch - 1) + what); }
    void take(unsigned what, unsigned epoch) { mail &= ~(1u << (kMails * (epoch - 1) + what)); }

    // What makes no difference any more is forgotten.
    void settle() {
        if (source_killed && something_else) owner_killed = true;
        if (owner_killed || unsure) source_killed = something_else = doubt = false;
        if (unsure) owner_killed = false;
    }

    std::uint64_t pack() const {
        std::uint64_t out = 0;
        const auto add = [&](std::uint64_t value, unsigned bits) { out = out << bits | value; };
        for (const SideState* side : {&source, &destination}) {
            add(static_cast<std::uint64_t>(side->state), 5);
            add(side->guest, 2);
            add(side->alive, 1);
            add(side->record, 3);
            add(side->writing, 3);
            add(side->link, 2);
            add(side->epoch - 1u, 1);
        }
        add(mail, 2 * kMails);
        add(destination_ran, 1);
        add(went_on, 2);
        add(owner_killed, 1);
        add(source_killed, 1);
        add(something_else, 1);
        add(doubt, 1);
        add(unsure, 1);
        return out;  // 17 + 17 + 18 + 8 bits
    }
    static World unpack(std::uint64_t bits) {
        World out;
        const auto get = [&](unsigned count) {
            const std::uint64_t value = bits & ((std::uint64_t{1} << count) - 1);
            bits >>= count;
            return value;
        };
        out.unsure = get(1) != 0;
        out.doubt = get(1) != 0;
        out.something_else = get(1) != 0;
        out.source_killed = get(1) != 0;
        out.owner_killed = get(1) != 0;
        out.went_on = static_cast<std::uint8_t>(get(2));
        out.destination_ran = get(1) != 0;
        out.mail = static_cast<std::uint32_t>(get(2 * kMails));
        for (SideState* side : {&out.destination, &out.source}) {
            side->epoch = static_cast<std::uint8_t>(get(1) + 1);
            side->link = static_cast<Link>(get(2));
            side->writing = static_cast<std::uint8_t>(get(3));
            side->record = static_cast<std::uint8_t>(get(3));
            side->alive = get(1) != 0;
            side->guest = static_cast<GuestHere>(get(2));
            side->state = static_cast<State>(get(5));
        }
        return out;
    }
    std::string text() const {
        std::string out;
        for (const SideState* side : {&source, &destination}) {
            out += std::string(name_of(side->state)) + '(' + std::to_string(side->epoch) + ')';
            if (!side->alive) out += " dead";
            out += side->guest == kRuns ? " runs" : side->guest == kStands ? " stands" : "";
            if (side->record != 0) {
                out += " record " + std::to_string(static_cast<int>(state_of(side->record))) + '(' +
                       std::to_string(epoch_of(side->record)) + ')';
            }
            if (side->writing != 0) out += " writing";
            out += side->link == kUp ? "; " : side->link == kBroken ? " broken; " : " down; ";
        }
        for (unsigned epoch = 1; epoch <= 2; ++epoch) {
            for (unsigned m = 0; m < kMails; ++m) {
                if (has(m, epoch)) out += mail_name(m) + '(' + std::to_string(epoch) + ") ";
            }
        }
        if (destination_ran) out += "[destination ran]";
        if (went_on != 0) out += "[source went on]";
        if (owner_killed) out += "[owner killed]";
        if (source_killed) out += "[source killed]";
        return out;
    }
    static std::string mail_name(unsigned m) {
        if (m == kMailGuest) return "guest";
        if (m == kMailHello) return "hello";
        return std::string(name_of(static_cast<Event>(m)));
    }
};

// A set of the states seen, each with a number.
class Numbers {
  public:
    Numbers() : slots_(std::size_t{1} << 16) {}
    // Its number, and whether it is new.
    std::pair<std::uint32_t, bool> add(std::uint64_t key) {
        if (2 * keys_.size() >= slots_.size()) grow();
        Slot& slot = find(key);
        if (slot.number != 0) return {slot.number - 1, false};
        keys_.push_back(key);
        slot = {key, static_cast<std::uint32_t>(keys_.size())};
        return {slot.number - 1, true};
    }
    std::uint64_t operator[](std::size_t number) const { return keys_[number]; }
    std::size_t size() const { return keys_.size(); }

  private:
    struct Slot {
        std::uint64_t key = 0;
        std::uint32_t number = 0;  // from 1 on; 0: free
    };
    Slot& find(std::uint64_t key) {
        std::uint64_t hash = key * 0x9e3779b97f4a7c15;
        hash ^= hash >> 29;
        std::size_t at = hash & (slots_.size() - 1);
        while (slots_[at].number != 0 && slots_[at].key != key)
            at = (at + 1) & (slots_.size() - 1);
        return slots_[at];
    }
    void grow() {
        slots_.assign(2 * slots_.size(), {});
        for (std::size_t i = 0; i < keys_.size(); ++i) {
            find(keys_[i]) = {keys_[i], static_cast<std::uint32_t>(i + 1)};
        }
    }
    std::vector<Slot> slots_;
    std::vector<std::uint64_t> keys_;
};

class Search {
  public:
    Search(const Table& table, Bounds bounds) : table_(table), bounds_(bounds) {}

    Report run() {
        number(World{}, kNobody, "start", false);
        for (std::uint32_t i = 0; i < seen_.size() && report_.broken.empty(); ++i) {
            from_ = i;
            const World world = World::unpack(seen_[i]);
            const std::string wrong = wrong_with(world);
            if (!wrong.empty()) {
                broken(wrong, i);
                break;
            }
            successors(world);
        }
        report_.states = seen_.size();
        if (report_.broken.empty()) look_at_endings();
        return report_;
    }

  private:
    static constexpr std::uint32_t kNobody = ~std::uint32_t{0};

    // What never may be, whatever happened.
    std::string wrong_with(const World& w) const {
        const SideState& s = w.source;
        const SideState& d = w.destination;
        if (s.guest == kRuns && d.guest == kRuns) return "both sides run the guest";
        if (s.guest == kRuns && w.destination_ran) {
            return "the source runs a guest that has run at the destination since";
        }
        if (d.guest == kRuns && w.went_on >= d.epoch) {
            return "the destination runs a copy of a guest that has gone on at the source";
        }
        for (const SideState* side : {&s, &d}) {
            if (!side->alive || !bounds_.strict) continue;
            const migration::Guest said = guest_in(side->state);
            const bool agrees = said == migration::Guest::kNone     ? side->guest == kNoGuest
                                : said == migration::Guest::kStands ? side->guest == kStands
                                : said == migration::Guest::kRuns   ? side->guest == kRuns
                                                                    : side->guest != kNoGuest;
            if (!agrees) return "the state says another thing of the guest than was done with it";
        }
        // A destination that is gone for ever costs the source nothing before COMMIT: when the link
        // breaks, it goes on. (Cancelling, it does not know whether there is a COMMIT.)
        const bool committed = s.record == record(RecordState::kCommit, s.epoch);
        if (s.alive && s.guest == kStands && !committed && s.writing == 0 &&
            s.state != State::kCancelling) {
            const migration::Step step = ownership(s).on(Event::kLinkLost);
            if (std::find(step.actions.begin(), step.actions.end(), Action::kRunGuest) ==
                step.actions.end()) {
                return "the source waits for the destination without a COMMIT";
            }
        }
        return {};
    }

    // The guest is where it will stay, and nobody waits for anything.
    static bool is_ending(const World& w) {
        if (w.unsure) return true;
        if (!w.source.alive || !w.destination.alive) return false;
        if (!is_settled(w.source.state) || !is_settled(w.destination.state)) return false;
        const int running = (w.source.guest == kRuns) + (w.destination.guest == kRuns);
        return running == 1 || may_be_lost(w);
    }
    static bool may_be_lost(const World& w) { return w.owner_killed; }

    // From each state, with both processes started and no more bad luck, an ending can be reached.
    // As that is so for the states on the way too, every fair run comes to one. And there the guest
    // stays.
    void look_at_endings() {
        std::vector<bool> good(seen_.size());
        std::vector<std::uint32_t> begin(seen_.size() + 1), sources(good_.size()), work;
        for (const auto& [from, to] : good_) {
            ++begin[to + 1];
        }
        for (std::size_t i = 1; i < begin.size(); ++i) {
            begin[i] += begin[i - 1];
        }
        std::vector<std::uint32_t> fill(begin.begin(), begin.end() - 1);
        for (const auto& [from, to] : good_) {
            sources[fill[to]++] = from;
        }
        for (std::uint32_t i = 0; i < seen_.size(); ++i) {
            if (!is_ending(World::unpack(seen_[i]))) continue;
            good[i] = true;
            work.push_back(i);
        }
        report_.endings = work.size();
        while (!work.empty()) {
            const std::uint32_t to = work.back();
            work.pop_back();
            for (std::uint32_t k = begin[to]; k < begin[to + 1]; ++k) {
                if (good[sources[k]]) continue;
                good[sources[k]] = true;
                work.push_back(sources[k]);
            }
        }
        for (std::uint32_t i = 0; i < seen_.size(); ++i) {
            if (!good[i]) return broken("the guest never comes to run on exactly one side", i);
        }
        for (const auto& [from, to] : good_) {
            const World before = World::unpack(seen_[from]);
            const World after = World::unpack(seen_[to]);
            if (!before.unsure && is_ending(before) &&
                (before.source.guest != after.source.guest ||
                 before.destination.guest != after.destination.guest)) {
                return broken("the guest does not stay where it was in the end", to);
            }
        }
    }

    void broken(const std::string& what, std::uint32_t where) {
        if (!report_.broken.empty()) return;
        report_.broken = what;
        for (; where != kNobody; where = parents_[where].first) {
            report_.path.push_back(std::string(parents_[where].second) + " -> " +
                                   World::unpack(seen_[where]).text());
        }
        std::reverse(report_.path.begin(), report_.path.end());
    }
    void number(World world, std::uint32_t from, const char* how, bool good) {
        world.settle();
        const auto [to, fresh] = seen_.add(world.pack());
        if (fresh) parents_.emplace_back(from, how);
        ++report_.transitions;
        if (good && from != kNobody && to != from) good_.emplace_back(from, to);
    }
    void to(const World& world, const char* how, bool good) { number(world, from_, how, good); }

    // Does the actions of one step; where the disk may do one thing or another, both.
    void act(World world, bool at_source, const migration::Step& step, const char* how, bool good,
             std::size_t done = 0) {
        SideState& side = at_source ? world.source : world.destination;
        const auto epoch = static_cast<unsigned>(step.attempt.epoch);
        for (; done < step.actions.size(); ++done) {
            const Action action = step.actions[done];
            if (const auto message = message_of(action)) {
                // Into a link that is known to be down nothing is sent.
                if (side.link != kDown) world.put(static_cast<unsigned>(*message), epoch);
            } else if (const auto what = record_of(action)) {
                side.writing = record(*what, epoch);
            } else if (action == Action::kStopGuest) {
                side.guest = kStands;
            } else if (action == Action::kDiscardGuest) {
                side.guest = kNoGuest;
            } else if (action == Action::kSendRest) {
                if (side.link != kDown) world.put(kMailGuest, epoch);
            } else if (action == Action::kRunGuest) {
                run_guest(world, at_source);
            } else if (action == Action::kEraseRecord && side.record != 0) {
                act(world, at_source, step, how, good, done + 1);  // it comes back
                side.record = 0;
            }
        }
        to(world, how, good);
    }
    static void run_guest(World& world, bool at_source) {
        SideState& side = at_source ? world.source : world.destination;
        // Without a guest there is nothing to run, but nobody may think so.
        side.guest = kRuns;
        if (at_source) {
            world.went_on = std::max(world.went_on, side.epoch);
        } else {
            world.destination_ran = true;
        }
    }

    Ownership ownership(const SideState& side) const {
        return {side.state, {{}, side.epoch}, table_};
    }
    // Whether it was taken; an event for which it is too early was not.
    template <class What>
    bool step(World world, bool at_source, const What& what, const char* how, bool good) {
        SideState& side = at_source ? world.source : world.destination;
        Ownership owner = ownership(side);
        const migration::Step step = owner.on(what);
        if (step.verdict == Verdict::kLater) return false;
        if (step.verdict == Verdict::kIllegal && bounds_.strict) {
            broken(std::string("illegal: ") + how, from_);
            return true;
        }
        side.state = owner.state();
        side.epoch = static_cast<std::uint8_t>(owner.attempt().epoch);
        act(world, at_source, step, how, good);
        return true;
    }

    void successors(const World& w) {
        for (const bool at_source : {true, false}) {
            happenings(w, at_source);
        }
        for (unsigned epoch = 1; epoch <= bounds_.attempts; ++epoch) {
            for (unsigned m = 0; m < kMails; ++m) {
                if (w.has(m, epoch)) arrival(w, m, epoch);
            }
        }
        if (bounds_.attempts > w.source.epoch && w.source.alive && w.source.state == State::kKept) {
            World next = w;
            next.source.state = State::kMoving;
            next.source.epoch = static_cast<std::uint8_t>(w.source.epoch + 1);
            next.source.link = kUp;
            next.put(kMailHello, next.source.epoch);
            to(next, "a new attempt", false);
        }
    }

    void happenings(const World& w, bool at_source) {
        const SideState& side = at_source ? w.source : w.destination;
        if (!side.alive) {
            restart(w, at_source);
            return;
        }
        if (bounds_.kills) kill(w, at_source);
        if (side.writing != 0) {
            written(w, at_source);
            return;
        }
        if (side.link == kBroken) {
            World next = w;
            (at_source ? next.source : next.destination).link = kDown;
            step(next, at_source, Event::kLinkLost, "link lost", true);
        }
        if (side.link == kDown) {
            World next = w;
            (at_source ? next.source : next.destination).link = kUp;
            step(next, at_source, Event::kLinkUp, "link up", true);
        }
        if (side.link == kDown && at_source) ask_elsewhere(w);
        if (side.link == kDown && !at_source && bounds_.hears == Hears::kStranger) {
            step(w, false, migration::Message{Event::kCommit, {{}, side.epoch}},
                 "a stranger's COMMIT", false);
        }
        if (side.state == State::kMoving) step(w, at_source, Event::kReady, "ready", true);
        if (side.state == State::kLocking) step(w, at_source, Event::kLocked, "locked", true);
        World next = w;
        next.something_else = true;
        step(next, at_source, Event::kCancel, "cancel", false);
        step(next, at_source, Event::kFailed, "failed", false);
    }

    // The source's question comes to a process that has neither guest nor record of it, and so does
    // the answer to the source.
    void ask_elsewhere(const World& w) {
        if (bounds_.hears != Hears::kWrongDestination) {
            step(w, true, Event::kLinkLost, "asked elsewhere", false);
            return;
        }
        Ownership wrong(State::kEmpty, {{}, w.source.epoch}, table_);
        Ownership source = ownership(w.source);
        const auto asked = source.on(Event::kLinkUp);
        for (const Action action : asked.actions) {
            const auto message = message_of(action);
            if (!message) continue;
            wrong.on(migration::Message{*message, asked.attempt});
            const auto answered = wrong.on(Event::kWritten);
            for (const Action answer : answered.actions) {
                if (const auto said = message_of(answer)) {
                    step(w, true, migration::Message{*said, answered.attempt}, "told elsewhere",
                         false);
                }
            }
        }
    }

    void kill(const World& w, bool at_source) {
        World next = w;
        SideState& side = at_source ? next.source : next.destination;
        SideState& peer = at_source ? next.destination : next.source;
        const std::uint8_t writing = side.writing;
        const GuestHere guest = side.guest;
        side.alive = false;
        side.guest = kNoGuest;
        side.writing = 0;
        side.link = kDown;
        side.state = at_source ? State::kSourceRestart : State::kDestinationRestart;
        if (peer.link == kUp) peer.link = kBroken;
        const auto killed = [&](std::uint8_t on_disk) {
            World after = next;
            SideState& dead = at_source ? after.source : after.destination;
            dead.record = on_disk;
            if (!at_source) {
                // An OWN that it denied, but had no time or no luck to write over, counts too.
                const bool own = on_disk == record(RecordState::kOwn, side.epoch);
                if (guest == kRuns || (own && (guest == kStands || writing != 0 || w.doubt))) {
                    after.owner_killed = true;
                }
                after.something_else = true;
            } else if (guest == kRuns ||
                       (guest == kStands && on_disk != record(RecordState::kCommit, side.epoch))) {
                after.owner_killed = true;
            } else if (guest == kStands) {
                after.source_killed = true;
            }
            to(after, "kill -9", false);
        };
        killed(side.record);
        if (writing != 0) killed(writing);
    }

    void restart(const World& w, bool at_source) {
        World next = w;
        SideState& side = at_source ? next.source : next.destination;
        side.alive = true;
        if (side.record == 0) {
            // The attempt is that of whoever asks first, and that may be an old message.
            for (; side.epoch != 0; --side.epoch) {
                step(next, at_source, Event::kNoRecord, "a new process", true);
            }
            return;
        }
        side.epoch = static_cast<std::uint8_t>(epoch_of(side.record));
        step(next, at_source, event_of(state_of(side.record)), "a new process", true);
        if (bounds_.disk_failures) {
            next.unsure = true;
            step(next, at_source, Event::kBadRecord, "a new process, a bad record", false);
        }
    }

    void written(const World& w, bool at_source) {
        World old = w;
        SideState& side = at_source ? old.source : old.destination;
        World fresh = w;
        (at_source ? fresh.source : fresh.destination).record = side.writing;
        (at_source ? fresh.source : fresh.destination).writing = 0;
        side.writing = 0;
        step(fresh, at_source, Event::kWritten, "written", true);
        if (!bounds_.disk_failures) return;
        old.something_else = fresh.something_else = true;
        if (!at_source && w.destination.record != 0 &&
            state_of(w.destination.record) == RecordState::kOwn) {
            old.doubt = fresh.doubt = true;
        }
        step(old, at_source, Event::kNotWritten, "not written", false);
        step(old, at_source, Event::kMaybeWritten, "maybe written: no", false);
        step(fresh, at_source, Event::kMaybeWritten, "maybe written: yes", false);
    }

    void arrival(const World& w, unsigned what, unsigned epoch) {
        World without = w;
        without.take(what, epoch);
        if (bounds_.losses) {
            World lost = without;
            for (SideState* side : {&lost.source, &lost.destination}) {
                if (side->link == kUp) side->link = kBroken;
            }
            to(lost, "a loss", false);
        }
        const bool to_source = goes_to_source(what);
        const SideState& side = to_source ? w.source : w.destination;
        if (!side.alive || side.link == kDown || side.writing != 0) return;
        receive(without, what, epoch, true);
        if (bounds_.losses) receive(w, what, epoch, false);  // and it will come again
    }
    void receive(const World& w, unsigned what, unsigned epoch, bool good) {
        const SideState& d = w.destination;
        if (what == kMailGuest) {
            World next = w;
            if (d.state == State::kReceiving && d.epoch == epoch) {
                next.destination.guest = kStands;
                step(next, false, Event::kComplete, "complete", good);
            } else if (d.epoch >= epoch) {
                to(w, "a guest that nobody waits for", good);
            }  // else it is behind the word of its attempt
        } else if (what == kMailHello) {
            hello(w, epoch, good);
        } else {
            static const std::vector<std::string> kHow = [] {
                std::vector<std::string> out;
                for (unsigned m = 0; m < kMails; ++m) {
                    out.push_back("received " + World::mail_name(m));
                }
                return out;
            }();
            step(w, goes_to_source(what), migration::Message{static_cast<Event>(what), {{}, epoch}},
                 kHow[what].c_str(), good);
        }
    }
    void hello(const World& w, unsigned epoch, bool good) {
        World next = w;
        SideState& d = next.destination;
        // A new attempt has a connection of its own, on which nothing comes when that is over.
        const bool connected =
            w.source.alive && w.source.epoch == epoch &&
            (w.source.state == State::kMoving || w.source.state == State::kStopped);
        if (!connected || d.epoch >= epoch) {
            // Or it has an Ownership of this attempt already.
            to(w, "hello for nothing", good);
        } else if (d.state == State::kRefused || d.state == State::kEmpty ||
                   d.state == State::kLost) {
            d.state = State::kReceiving;
            d.epoch = static_cast<std::uint8_t>(epoch);
            d.link = w.source.link;
            to(next, "hello", good);
        } else {
            // It comes again when that has ended.
            next.put(kMailHello, epoch);
            step(next, false, Event::kSuperseded, "superseded", good);
        }
    }

    const Table& table_;
    const Bounds bounds_;
    Numbers seen_;
    std::vector<std::pair<std::uint32_t, const char*>> parents_;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> good_;
    std::uint32_t from_ = kNobody;
    Report report_;
};

}  // namespace ownership_model
