// What the two programs at the ends of a TLS connection say to each other, carried between it and
// the socket of the one that is here.
#pragma once

#include "vmm/base/result.h"
#include "vmm/tls/session.h"

namespace vmm::tls {

// `plain`: a connected stream socket. Either side may have said all (shut down its writing end, or
// a close_notify) and still hear the other. Returns when both have, or when whoever has the other
// end of `plain` has closed it and what it said is sent. A failure: the connection was lost, and
// what came before that is passed on; an end that was not announced is one.
Result<void> carry(Session& session, int plain);

}  // namespace vmm::tls
