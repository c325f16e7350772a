// The xenstore of one VM: a tree of small values with permissions, transactions and watches, as
// docs/misc/xenstore.txt of Xen describes it and as the C xenstored of 4.17 behaves where that
// text is silent. It knows neither KVM nor guest memory; wire.h speaks its protocol.
//
// Whoever uses the tree does so through a Session, which has a domain id and owns watches and
// transactions. Nothing here is thread-safe: the callers hold one lock over the store, its
// sessions and its connections, and watch callbacks run with that lock held.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/result.h"

namespace xenshim::xenstore {

using DomainId = std::uint16_t;
inline constexpr DomainId kPrivilegedDomain = 0;

// The errors that the wire protocol can name (xsd_errors in xs_wire.h).
enum class StoreError {
    kEinval,
    kEacces,
    kEexist,
    kEisdir,
    kEnoent,
    kEnomem,
    kEnospc,
    kEio,
    kEnotempty,
    kEnosys,
    kErofs,
    kEbusy,
    kEagain,
    kEisconn,
    kE2big,
    kEperm,
};
// "ENOENT" and so on: the text that goes over the wire.
const char* error_name(StoreError error);

template <class T>
using StoreResult = vmm::Expected<T, StoreError>;

enum class Access : std::uint8_t { kNone = 0, kRead = 1, kWrite = 2, kBoth = 3 };

struct Permission {
    DomainId domid = 0;
    Access access = Access::kNone;
    bool operator==(const Permission&) const = default;
};
// The first entry names the owner, who may do everything, and what domains not listed may do.
using Permissions = std::vector<Permission>;

// "n0", "r5", "w5", "b5".
std::string format_permission(Permission permission);
std::optional<Permission> parse_permission(std::string_view text);

// Path and payload limits of xs_wire.h.
inline constexpr std::size_t kAbsolutePathMax = 3072;
inline constexpr std::size_t kRelativePathMax = 2048;
inline constexpr std::size_t kPayloadMax = 4096;

// "/local/domain/<domid>": where relative paths of that domain start.
std::string domain_path(DomainId domid);
// The absolute form of a path as a client of `domid` gave it, or EINVAL.
StoreResult<std::string> absolute_path(DomainId domid, std::string_view path);

// What a domain other than 0 may hold. The defaults are xenstored's.
struct Quotas {
    std::size_t nodes = 1000;              // nodes owned; ENOSPC
    std::size_t entry_size = 2048;         // a node's record, see Store::record_size; ENOSPC
    std::size_t permissions = 5;           // entries per node; ENOSPC
    std::size_t watches = 128;             // E2BIG
    std::size_t transactions = 10;         // open at a time; ENOSPC
    std::size_t transaction_nodes = 1024;  // nodes touched in one; ENOSPC
};

using TransactionId = std::uint32_t;
inline constexpr TransactionId kNoTransaction = 0;
using WatchId = std::uint64_t;  // never reused within a store

// One event. `path` is in the form that the watcher used: relative stays relative.
struct WatchEvent {
    WatchId watch = 0;
    std::string watched;  // what was registered
    std::string path;     // what changed: `watched` or below it
    std::string token;
};

struct DirectoryListing {
    std::vector<std::string> children;  // sorted
    std::uint64_t generation = 0;       // changes whenever the node or its list of children does
};

class Session;

class Store {
  public:
    explicit Store(Quotas quotas = {});
    Store(const Store&) = delete;
    Store& operator=(const Store&) = delete;
    ~Store();

    // The domain exists, or no longer does: fires @introduceDomain or @releaseDomain.
    void introduce_domain(DomainId domid);
    void release_domain(DomainId domid);
    bool is_introduced(DomainId domid) const;

    // While one of these lives, watch events are kept back; the last one to go delivers them in
    // order. Every operation holds one, so a callback always sees the finished change and may
    // use the store itself; the wire holds one so that a reply precedes the events it causes.
    class Hold {
      public:
        explicit Hold(Store& store);
        Hold(const Hold&) = delete;
        Hold& operator=(const Hold&) = delete;
        ~Hold();

      private:
        Store& store_;
    };

    std::size_t node_count() const { return total_nodes_; }
    std::size_t node_count(DomainId owner) const;
    std::size_t watch_count(DomainId domid) const;
    std::size_t transaction_count(DomainId domid) const;
    const Quotas& quotas() const { return quotas_; }

    // Counts everything again, slowly; false when the accounting has drifted from the truth.
    bool accounting_holds() const;

  private:
    friend class Session;
    friend class SavedForm;
    struct Node;
    struct Change;
    struct Transaction;
    struct View;
    struct Deepest;
    using NodePtr = std::shared_ptr<Node>;
    using Counts = std::map<DomainId, std::ptrdiff_t>;

    struct Watch {
        Session* session = nullptr;
        WatchId id = 0;
        std::string absolute;
        std::string given;
        std::string token;
    };

    // The tree. Nodes are shared between the store and the snapshots of transactions and are
    // copied before they are changed, so starting a transaction costs nothing.
    static Deepest deepest(const NodePtr& root, std::string_view path);
    static const Node* find(const NodePtr& root, std::string_view path);
    static Node& edit(NodePtr& root, std::string_view path);
    static std::size_t record_size(const Node& node);
    static void count_subtree(const Node& node, Counts& counts);
    static std::vector<Change> removals(const Node& node, const std::string& path,
                                        const Permissions& parent);
    static Change describe(const View& view, const std::string& path);

    StoreResult<const Node*> lookup(View& view, const std::string& path, Access wanted);
    StoreResult<void> touch(View& view, std::string_view path, bool modified) const;
    StoreResult<void> create(View& view, const std::string& path, std::string_view value);
    StoreResult<void> replace(View& view, const std::string& path, std::string_view value);
    StoreResult<void> erase(View& view, const std::string& path);
    bool fits(const View& view, std::size_t size) const;
    bool may_own(const View& view, std::size_t more) const;
    void account(View& view, DomainId owner, std::ptrdiff_t change);
    void account(DomainId owner, std::ptrdiff_t change);
    void changed(View& view, Change change);

    StoreResult<void> commit(const Session& session, const Transaction& transaction);
    bool conflicts(const Transaction& transaction) const;
    void merge(const Transaction& transaction);

    void publish(const Change& change);
    void fire_special(std::string_view name);
    void deliver();

    Quotas quotas_;
    NodePtr root_;
    std::uint64_t generation_ = 0;
    std::size_t total_nodes_ = 0;
    std::map<DomainId, std::size_t> owned_;
    std::set<DomainId> introduced_;
    std::set<Session*> sessions_;
    std::map<WatchId, Watch> watches_;  // in order of registration
    WatchId last_watch_ = 0;
    struct Pending {
        WatchId watch;
        std::string path;
    };
    std::deque<Pending> pending_;
    unsigned holds_ = 0;
    bool delivering_ = false;
};

// One client of the store: the guest's ring, a socket, a backend of ours. Must not outlive the
// store. Its watches and open transactions end with it. The sink must not destroy its session.
class Session {
  public:
    using Sink = std::function<void(const WatchEvent&)>;

    Session(Store& store, DomainId domid, Sink sink = {});
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    ~Session();

    Store& store() { return store_; }
    DomainId domid() const { return domid_; }
    bool privileged() const { return domid_ == kPrivilegedDomain; }

    // Paths may be relative to domain_path(domid()). ENOENT for a transaction that is not open.
    StoreResult<std::string> read(TransactionId in, std::string_view path);
    StoreResult<void> write(TransactionId in, std::string_view path, std::string_view value);
    StoreResult<void> mkdir(TransactionId in, std::string_view path);
    StoreResult<void> remove(TransactionId in, std::string_view path);
    StoreResult<DirectoryListing> directory(TransactionId in, std::string_view path);
    StoreResult<Permissions> permissions(TransactionId in, std::string_view path);
    StoreResult<void> set_permissions(TransactionId in, std::string_view path, Permissions perms);

    StoreResult<TransactionId> start_transaction();
    // EAGAIN when something that the transaction read or wrote has changed meanwhile; it is over
    // in any case, unless it was not open (ENOENT).
    StoreResult<void> end_transaction(TransactionId in, bool commit);
    bool has_transaction(TransactionId in) const;

    // The first event follows at once. `path` may be @introduceDomain or @releaseDomain.
    StoreResult<WatchId> watch(std::string_view path, std::string_view token);
    StoreResult<WatchId> unwatch(std::string_view path, std::string_view token);
    // Drops all watches and transactions, as a kernel started by kexec wants.
    void reset();

  private:
    friend class Store;
    friend class SavedForm;
    StoreResult<Store::View> view(TransactionId in);

    Store& store_;
    DomainId domid_;
    Sink sink_;
    std::size_t watch_total_ = 0;
    TransactionId last_transaction_ = 0;
    std::map<TransactionId, std::unique_ptr<Store::Transaction>> transactions_;
};

}  // namespace xenshim::xenstore
