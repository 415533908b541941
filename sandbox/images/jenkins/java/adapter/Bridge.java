package adapter;

import hudson.model.Computer;
import hudson.model.Descriptor;
import hudson.model.Hudson;
import hudson.model.Label;
import hudson.model.Node;
import hudson.model.Queue;
import hudson.model.User;
import hudson.model.labels.LabelAtom;
import hudson.security.ACL;
import hudson.security.AuthorizationStrategy;
import hudson.security.GlobalMatrixAuthorizationStrategy;
import hudson.security.HudsonPrivateSecurityRealm;
import hudson.security.Permission;
import hudson.security.PermissionGroup;
import hudson.tasks.Mailer;
import java.io.BufferedReader;
import java.io.IOException;
import java.lang.reflect.Field;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import javax.servlet.ServletException;
import javax.servlet.http.HttpServlet;
import javax.servlet.http.HttpServletRequest;
import javax.servlet.http.HttpServletResponse;
import net.sf.json.JSONArray;
import net.sf.json.JSONObject;
import org.acegisecurity.Authentication;
import org.acegisecurity.context.SecurityContextHolder;

/**
 * Stands in for the inner half of the configuration-as-code and kubernetes plugins: what can only be done inside
 * the controller's JVM, offered on loopback to the adapter beside it, which knows a token made at each start.
 */
public final class Bridge extends HttpServlet {
    private static final long serialVersionUID = 1;
    private String token;
    /** Labels and usage of the pod templates, in the order of the document; null until configured. */
    private volatile List<Template> templates;

    private static final class Template {
        final Set<LabelAtom> labels;
        final boolean normal;

        Template(JSONObject json) {
            labels = Label.parse(text(json, "label"));
            normal = json.getBoolean("normal");
        }
    }

    @Override
    public void init() throws ServletException {
        try {
            token = new String(Files.readAllBytes(Paths.get(System.getProperty("adapter.token.file"))),
                    StandardCharsets.UTF_8);
        } catch (IOException e) {
            throw new ServletException(e);
        }
    }

    @Override
    protected void service(HttpServletRequest request, HttpServletResponse response) throws IOException {
        String given = request.getHeader("X-Adapter-Token");
        if (given == null || !MessageDigest.isEqual(
                token.getBytes(StandardCharsets.UTF_8), given.getBytes(StandardCharsets.UTF_8))) {
            response.sendError(HttpServletResponse.SC_NOT_FOUND);
            return;
        }
        response.setContentType("application/json;charset=UTF-8");
        if (!(getServletContext().getAttribute("app") instanceof Hudson)) {
            response.setStatus(HttpServletResponse.SC_SERVICE_UNAVAILABLE);
            response.getWriter().print("{\"error\":\"still loading\"}");
            return;
        }
        Authentication before = SecurityContextHolder.getContext().getAuthentication();
        SecurityContextHolder.getContext().setAuthentication(ACL.SYSTEM);
        try {
            response.getWriter().print(answer(request.getPathInfo(), body(request)));
        } catch (Exception e) {
            response.setStatus(HttpServletResponse.SC_INTERNAL_SERVER_ERROR);
            JSONObject error = new JSONObject();
            error.put("error", String.valueOf(e.getMessage() == null ? e : e.getMessage()));
            response.getWriter().print(error);
        } finally {
            SecurityContextHolder.getContext().setAuthentication(before);
        }
    }

    private Object answer(String action, JSONObject in) throws Exception {
        Hudson hudson = Hudson.getInstance();
        if ("/configure".equals(action)) {
            return configure(hudson, in);
        }
        if ("/state".equals(action)) {
            return state(hudson);
        }
        if ("/add-agent".equals(action)) {
            return addAgent(hudson, in);
        }
        if ("/accept-tasks".equals(action)) {
            Computer computer = hudson.getComputer(text(in, "name"));
            if (computer instanceof PodAgent.PodComputer) {
                ((PodAgent.PodComputer) computer).setAcceptingTasks(true);
                hudson.getQueue().scheduleMaintenance();
            }
            return new JSONObject();
        }
        if ("/retire-agent".equals(action)) {
            Computer computer = hudson.getComputer(text(in, "name"));
            if (computer instanceof PodAgent.PodComputer) {
                // The queue gives builds to agents under this lock: none can be on its way unseen.
                synchronized (hudson.getQueue()) {
                    ((PodAgent.PodComputer) computer).setAcceptingTasks(false);
                }
            }
            return new JSONObject();
        }
        if ("/remove-agent".equals(action)) {
            Node node = hudson.getNode(text(in, "name"));
            if (node instanceof PodAgent) {
                hudson.removeNode(node);
            }
            return new JSONObject();
        }
        throw new IllegalArgumentException("no such action: " + action);
    }

    /** Brings the document's settings in force; everything is looked up before anything is changed. */
    private JSONObject configure(Hudson hudson, JSONObject in) throws Exception {
        AuthorizationStrategy strategy = strategy(in.getJSONArray("permissions"));
        List<Template> parsed = new ArrayList<Template>();
        for (Object template : in.getJSONArray("templates")) {
            parsed.add(new Template((JSONObject) template));
        }

        HudsonPrivateSecurityRealm realm = new HudsonPrivateSecurityRealm(in.getBoolean("allowsSignup"));
        if (!(hudson.getSecurityRealm() instanceof HudsonPrivateSecurityRealm)
                || ((HudsonPrivateSecurityRealm) hudson.getSecurityRealm()).allowsSignup() != realm.allowsSignup()) {
            hudson.setSecurityRealm(realm);
        }
        for (Object entry : in.getJSONArray("users")) {
            JSONObject user = (JSONObject) entry;
            HudsonPrivateSecurityRealm.Details details =
                    User.get(text(user, "id")).getProperty(HudsonPrivateSecurityRealm.Details.class);
            // A password that is right already is not hashed anew: the user's file stays as it is.
            if (details == null || !HudsonPrivateSecurityRealm.PASSWORD_ENCODER.isPasswordValid(
                    details.getPassword(), text(user, "password"), null)) {
                realm.createAccount(text(user, "id"), text(user, "password"));
            }
            if (user.has("name")) {
                User.get(text(user, "id")).setFullName(text(user, "name"));
                User.get(text(user, "id")).save();
            }
        }
        hudson.setAuthorizationStrategy(strategy);
        set(hudson, "useSecurity", Boolean.TRUE);
        if (in.has("quietPeriod")) {
            set(hudson, "quietPeriod", in.getInt("quietPeriod"));
        }
        if (in.has("mode")) {
            set(hudson, "mode", Node.Mode.valueOf(text(in, "mode")));
        }
        if (hudson.getNumExecutors() != in.getInt("numExecutors")) {
            hudson.setNumExecutors(in.getInt("numExecutors"));
            // The number reaches the running controller's own executors only with the list of its nodes.
            hudson.setNodes(hudson.getNodes());
        }
        hudson.setSystemMessage(text(in, "systemMessage"));
        if (in.has("url")) {
            Mailer.DescriptorImpl mailer = hudson.getDescriptorByType(Mailer.DescriptorImpl.class);
            mailer.setHudsonUrl(text(in, "url"));
            mailer.save();
        }
        hudson.save();
        templates = parsed;
        return new JSONObject();
    }

    /** An empty list means that anybody may do anything. Entries are "Group/Name:user or group". */
    private static AuthorizationStrategy strategy(JSONArray permissions) {
        if (permissions.isEmpty()) {
            return AuthorizationStrategy.UNSECURED;
        }
        GlobalMatrixAuthorizationStrategy matrix = new GlobalMatrixAuthorizationStrategy();
        for (Object entry : permissions) {
            String line = decode((String) entry);
            String name = line.substring(0, line.indexOf(':'));
            Permission found = null;
            for (PermissionGroup group : PermissionGroup.getAll()) {
                for (Permission permission : group.getPermissions()) {
                    if ((group.title.toString(Locale.ENGLISH) + "/" + permission.name).equals(name)) {
                        found = permission;
                    }
                }
            }
            if (found == null) {
                throw new IllegalArgumentException("authorizationStrategy: there is no permission " + name);
            }
            matrix.add(found, line.substring(line.indexOf(':') + 1));
        }
        return matrix;
    }

    private JSONObject state(Hudson hudson) {
        // Jenkins looks through its queue whenever something changed. Hudson leaves that to an executor that waits, which is woken
        // here, and without one to a timer of five seconds.
        hudson.getQueue().maintain();
        hudson.getQueue().scheduleMaintenance();
        List<Template> current = templates == null ? new ArrayList<Template>() : templates;
        JSONArray queue = new JSONArray();
        for (Queue.Item item : hudson.getQueue().getItems()) {
            if (item instanceof Queue.BuildableItem && !hudson.getQueue().isPending(item.task)) {
                Label label = item.task.getAssignedLabel();
                JSONObject json = new JSONObject();
                json.put("id", item.id);
                json.put("task", item.task.getFullDisplayName());
                json.put("label", label == null ? "" : label.getExpression());
                JSONArray matching = new JSONArray();
                for (int i = 0; i < current.size(); i++) {
                    Template template = current.get(i);
                    if (label == null ? template.normal : label.matches(template.labels)) {
                        matching.add(i);
                    }
                }
                json.put("templates", matching);
                queue.add(json);
            }
        }
        JSONArray agents = new JSONArray();
        for (Computer computer : hudson.getComputers()) {
            if (computer instanceof PodAgent.PodComputer) {
                PodAgent.PodComputer pod = (PodAgent.PodComputer) computer;
                pod.wasOnline |= pod.isOnline();
                JSONObject json = new JSONObject();
                json.put("name", pod.getName());
                json.put("online", pod.isOnline());
                json.put("wasOnline", pod.wasOnline);
                json.put("used", pod.used);
                json.put("idle", pod.isIdle());
                json.put("idleSince", pod.getIdleStartMilliseconds());
                agents.add(json);
            }
        }
        JSONObject state = new JSONObject();
        state.put("configured", templates != null);
        state.put("quietingDown", hudson.isQuietingDown());
        state.put("pending", hudson.getQueue().getPendingItems().size());
        state.put("queue", queue);
        state.put("agents", agents);
        return state;
    }

    private static JSONObject addAgent(Hudson hudson, JSONObject in) throws Descriptor.FormException, IOException {
        hudson.addNode(new PodAgent(text(in, "name"), text(in, "description"), text(in, "remoteFs"),
                in.getBoolean("normal") ? Node.Mode.NORMAL : Node.Mode.EXCLUSIVE, text(in, "label"),
                in.getBoolean("reusable")));
        JSONObject answer = new JSONObject();
        answer.put("secret", hudson.getSecretKey());
        return answer;
    }

    private static void set(Hudson hudson, String field, Object value) throws ReflectiveOperationException {
        Field found = Hudson.class.getDeclaredField(field);
        found.setAccessible(true);
        found.set(hudson, value);
    }

    /** Texts arrive percent-encoded: this JSON library takes a text that starts like JSON for JSON. */
    private static String text(JSONObject json, String key) {
        return decode(json.getString(key));
    }

    private static String decode(String encoded) {
        try {
            return URLDecoder.decode(encoded, "UTF-8");
        } catch (IOException e) {
            throw new IllegalStateException(e);
        }
    }

    private static JSONObject body(HttpServletRequest request) throws IOException {
        request.setCharacterEncoding("UTF-8");
        StringBuilder text = new StringBuilder();
        BufferedReader reader = request.getReader();
        char[] buffer = new char[8192];
        for (int n; (n = reader.read(buffer)) > 0; ) {
            text.append(buffer, 0, n);
        }
        return text.length() == 0 ? new JSONObject() : JSONObject.fromObject(text.toString());
    }
}
