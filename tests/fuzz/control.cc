// What comes out of a control socket, in any pieces: requests of clients, and for those the
// answers.
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "control/http.h"
#include "control/json.h"
#include "tests/fuzz/input.h"

namespace {

using namespace control;

struct Read {
    std::vector<Request> requests;
    int refused = 0;  // the status
};

Read read(std::string_view bytes, std::size_t at_once) {
    Read out;
    RequestReader reader;
    for (;;) {
        auto next = reader.next();
        if (!next) {
            out.refused = next.error().status;
            FUZZ_CHECK(out.refused >= 400 && out.refused < 600);
            FUZZ_CHECK(!error_of(next.error().body).empty());
            return out;
        }
        if (next->has_value()) {
            out.requests.push_back(std::move(**next));
            continue;
        }
        if (bytes.empty()) return out;
        const std::size_t n = std::min(at_once, bytes.size());
        reader.append(bytes.substr(0, n));
        bytes.remove_prefix(n);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string bytes(data + 1, data + size);
    const std::size_t at_once = 1 + data[0] % 61;
    const Read whole = read(bytes, ~std::size_t{0});
    const Read pieces = read(bytes, at_once);
    FUZZ_CHECK(pieces.requests == whole.requests);
    // Of two reasons another one may show first.
    FUZZ_CHECK((pieces.refused != 0) == (whole.refused != 0));
    for (const Request& request : whole.requests) {
        FUZZ_CHECK(request.body.size() <= kMaxBody);
        FUZZ_CHECK(!request.method.empty() && request.target.starts_with('/'));
        // What we would write ourselves for it is read as the same.
        const Read again = read(to_wire(request), ~std::size_t{0});
        FUZZ_CHECK(again.refused == 0 && again.requests.size() == 1);
        FUZZ_CHECK(again.requests[0] == request);
    }
    // The client's side.
    const auto answer = read_response(bytes);
    FUZZ_CHECK(answer || !answer.error().what.empty());
    if (answer && *answer) FUZZ_CHECK((*answer)->body.size() <= kMaxAnswer);
    static_cast<void>(error_of(bytes));
    return 0;
}
